"""Where rows come from: a local copy of a source's bytes, and the records in it."""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from data_contracts.digests import canonical_json
from data_contracts.errors import BadInput, Unavailable
from pipelines.recipes.product import ROOT
from pipelines.stages.data.generate import generated


class Record(NamedTuple):
    """What one line or row of a source holds. ``fault`` says why it cannot be used; it never quotes the line."""

    line: int
    values: dict[str, Any]
    fault: str = ""


_LONGEST = 16 << 20
"""Bytes of the longest line: a longer one is no row, and would have to be held whole."""

_CONFLICT = re.compile(r"(?:<{7}|\|{7}|>{7})(?: |\s*$)|={7}\s*$")
_UNRESOLVED = "is a git merge-conflict marker; resolve the conflict"

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}


def fetch(url: str, folder: Path) -> Path:
    """A copy of a source below ``folder``, so that what is digested is what is read. ``${NAME}`` in its url stands for
    an environment variable: manifests keep the url as it is written, which names no machine's folders. Raises
    `BadInput` or `Unavailable`."""
    url = _expanded(url)
    if url.startswith("generated://"):
        path = folder / "generated.jsonl"
        path.write_bytes(generated(url.removeprefix("generated://")))
        return path
    if url.startswith("hf://datasets/") and _suffix(url) is None:
        return _from_hub(url.removeprefix("hf://datasets/"), folder / "hub.jsonl")
    if _suffix(url) is None:
        raise BadInput(f"source {url}: not JSONL, CSV or Parquet by its name; use .jsonl, .csv or .parquet")
    path = folder / f"source{_suffix(url)}"
    _copy(url, path)
    if path.stat().st_size == 0:
        raise BadInput(f"source {url} is empty: it needs at least one row")
    return path


def read(path: Path, url: str) -> Iterator[Record]:
    """Records of a fetched source, in file order. Blank lines are no records; whatever else cannot be read is a record
    with a fault."""
    kind = FORMATS[path.suffix.lower()]
    for record in {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[kind](path, url):
        fault = record.fault or _unusable(record.values)
        yield record._replace(fault=fault) if fault else record


def _suffix(url: str) -> str | None:
    suffix = Path(url.split("?")[0]).suffix.lower()
    return suffix if suffix in FORMATS else None


def _expanded(url: str) -> str:
    def value(match: re.Match[str]) -> str:
        if not os.environ.get(match[1]):
            raise BadInput(f"source {url}: the environment variable {match[1]} is not set; set it to what url needs")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, url)


def _copy(url: str, path: Path) -> None:
    import fsspec

    place = url if re.match(r"^[a-z0-9+]+://", url) or url.startswith("/") else str(ROOT / url)
    try:
        with fsspec.open(place, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
    except FileNotFoundError as error:
        raise BadInput(f"source {url} does not exist: correct url in the product file") from error
    except (ImportError, ValueError) as error:
        raise BadInput(f"source {url} cannot be opened: {error}") from error
    except OSError as error:
        raise Unavailable(f"source {url} cannot be read now: {error}") from error


def _from_hub(address: str, path: Path) -> Path:
    """``ORG/NAME[/CONFIG][?split=SPLIT]`` of the Hugging Face hub as JSON lines."""
    name, _, query = address.partition("?")
    organisation, _, rest = name.partition("/")
    data_set, _, config = rest.partition("/")
    split = query.removeprefix("split=") or "train"
    import datasets

    try:
        rows = datasets.load_dataset(f"{organisation}/{data_set}", config or None, split=split)
    except (OSError, ValueError) as error:
        cause = type(error).__name__
        raise Unavailable(
            f"hub data set {address} cannot be loaded ({cause}): check its name and the network, or export it to "
            ".parquet and put that path in the product file"
        ) from error
    rows.to_json(path, lines=True, force_ascii=False)
    return path


def _jsonl(path: Path, url: str) -> Iterator[Record]:
    with path.open("rb") as handle:
        for number, line in enumerate(iter(lambda: handle.readline(_LONGEST + 1), b""), start=1):
            if len(line) > _LONGEST:
                raise BadInput(f"source {url}, line {number} is longer than {_LONGEST >> 20} MiB; write one row a line")
            data = line.removeprefix(b"\xef\xbb\xbf")
            if data.strip():
                yield _json(number, data)


def _json(number: int, data: bytes) -> Record:
    if _CONFLICT.match(data.decode("latin-1")):
        return Record(number, {}, _UNRESOLVED)
    try:
        values = json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_once)
    except UnicodeDecodeError:
        return Record(number, {}, "is not UTF-8; save the file as UTF-8")
    except _Unfit as error:
        return Record(number, {}, str(error))
    except (ValueError, RecursionError):
        return Record(number, {}, "is not JSON; write one JSON object a line")
    if not isinstance(values, dict):
        return Record(number, {}, f"is a JSON {type(values).__name__}, not an object; write one JSON object a line")
    return Record(number, values)


def _no_constant(word: str) -> None:
    raise _Unfit(f"is not JSON: it holds {word}; write a finite number, or leave the row out")


class _Unfit(ValueError):
    """A line that JSON readers take differently."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are named once: of two values Python would keep the last and other readers the first."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Unfit("names a key twice; keep one of them")
    return values


def _csv(path: Path, url: str) -> Iterator[Record]:
    """Records under the first line that can be a header. A record is named by the line it begins on."""
    header: list[str] = []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as handle:
        lines = _lines(handle, url)
        for number, line in lines:
            line = line.removeprefix("\ufeff")
            if _CONFLICT.match(line):
                yield Record(number, {}, _UNRESOLVED)
                continue
            try:
                cells = next(csv.reader(chain((line,), (more for _, more in lines))), [])
            except csv.Error as error:
                raise BadInput(f"source {url}, line {number}: {error}; is it a CSV file?") from error
            if not cells:
                continue
            if not header:
                if len(set(cells)) != len(cells):
                    raise BadInput(f"source {url}: its header, line {number}, must name each column once")
                header = cells
            elif fault := _misfit(cells, header):
                yield Record(number, {}, fault)
            else:
                yield Record(number, dict(zip(header, cells, strict=True)))


def _lines(handle: TextIO, url: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(iter(lambda: handle.readline(_LONGEST + 1), ""), start=1):
        if len(line) > _LONGEST:
            raise BadInput(f"source {url}, line {number} is longer than {_LONGEST >> 20} MiB; write one row a line")
        yield number, line


def _misfit(cells: list[str], header: list[str]) -> str:
    """Why these cells are no row under this header, or nothing."""
    if cells == header:
        return "repeats the header; keep the first one"
    if len(cells) > len(header):
        return "has more cells than the header; quote the commas in it"
    return "has fewer cells than the header; complete it" if len(cells) < len(header) else ""


def _parquet(path: Path, url: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        batches = pq.ParquetFile(path).iter_batches()
        number = 0
        for batch in batches:
            for values in batch.to_pylist():
                number += 1
                yield Record(number, values)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"source {url} is not a whole Parquet file: {error}") from error


def _unusable(values: dict[str, Any]) -> str:
    """Why a record cannot have a name, or nothing."""
    try:
        text = canonical_json(values)
    except (ValueError, TypeError, RecursionError) as error:
        if "UTF-8" in str(error):
            return "holds text that is not UTF-8; save the file as UTF-8"
        return f"holds a value that JSON cannot carry ({type(error).__name__}); write it as text"
    return "holds a NUL character; remove it" if b"\\u0000" in text else ""
