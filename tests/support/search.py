"""Is a text anywhere below a folder? And which texts are one person's alone."""

import gzip
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.stages.protocols import Parts

_WORDS = 4
_RUN = re.compile(r"[\w.@'-]+")


def traces_of(folder: Path, *texts: str) -> list[str]:
    """Files that hold one of the texts: as bytes (also what SQLite freed or logged), or in what Parquet columns, SQLite
    values and gzip unpack to. A file that goes while it is looked for holds nothing."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path.relative_to(folder)) for path in paths if any(_holds(read, texts) for read in _readings(path))]


def own_texts(parts: Parts, subject: str) -> list[str]:
    """Four words in a row, and addresses, that stand in a subject's rows and in nobody else's."""
    mine: set[str] = set()
    others: list[str] = []
    for who, row in _rows(parts):
        if who == subject:
            mine.update(each for text in _strings(row) for each in _pieces(text))
        else:
            others.append(json.dumps(row, ensure_ascii=False))
    everything = "\n".join(others)
    return sorted(each for each in mine if each not in everything)


def _rows(parts: Parts) -> Iterator[tuple[str, Any]]:
    for root in sorted({root for root, _ in parts.ledger.sets()}):
        yield from ((item.subject, item.row) for item in parts.datasets.read(root))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _pieces(text: str) -> Iterator[str]:
    words = [*_RUN.finditer(text)]
    for first, last in zip(words, words[_WORDS - 1 :], strict=False):
        piece = text[first.start() : last.end()]
        if piece.isascii() and not re.search(r'["\\\n]', piece):
            yield piece
    yield from (word.group() for word in words if re.fullmatch(r"[^@]+@[^@]+\.\w+", word.group()))


def _holds(data: bytes, texts: tuple[str, ...]) -> bool:
    return any(text.encode() in data for text in texts)


def _readings(path: Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    yield data
    if path.suffix == ".parquet":
        yield str(pq.read_table(path).to_pylist()).encode()
    elif path.suffix == ".gz":
        yield gzip.decompress(data)
    elif data.startswith(b"SQLite format 3"):
        db = sqlite3.connect(path)
        yield "\n".join(db.iterdump()).encode()
        db.close()
