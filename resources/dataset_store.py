"""Rows as Parquet: names in a file that is never rewritten, content in shards that erasure may rewrite."""

import json
import os
import shutil
import uuid
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.digests import Digest, LinesDigest, hex_of, merkle_root
from data_contracts.errors import Missing, Tampered
from data_contracts.ledger import ledger_digest
from pipelines.stages.data.batches import batched
from pipelines.stages.data.item import Item, Row
from pipelines.stages.data.protocols import Held, Sealed
from resources.spool import Spool, origin_of

_NAMES_GROUP = 4_096
"""Names in a row group: the least that is read to find one, by the first and last name that the file's foot has."""
_NAMES = pa.schema([("name", pa.string()), ("subject", pa.string())])
_SHARD_ROWS = 10_000
_ROWS_GROUP = 1_000
"""Rows in a row group: what is held at once when they are read."""
_ROWS = pa.schema([(name, pa.string()) for name in ("name", "subject", "origin", "row")])
_LISTED = pa.schema([(name, pa.string()) for name in ("name", "subject", "origin")])
_ERASED = "{}"
"""What stands in a quarantine for the content of an erased row."""
_DROPPED = pa.schema([("name", pa.string()), ("subject", pa.string()), ("reason", pa.string()), ("row", pa.string())])


class ParquetDatasetStore:
    """``<folder>/<root>/names.parquet`` beside ``rows-*.parquet``; dropped rows in
    ``quarantine/<action key>.parquet``. Files have mode 0600.

    Rows lie in the order in which they came, names in their own. Names are written last: where they are, the rows are
    whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        with closing(Spool(self.folder)) as spool:
            yield spool

    def write(self, items: Iterable[Item]) -> Sealed:
        """Shards are written aside and moved once the root, which names their folder, is known."""
        aside = self._make(self.folder / f".{uuid.uuid4().hex}.part")
        content = LinesDigest()
        names = [_table(_LISTED, [[]] * 3)]
        for number, some in enumerate(batched(items, _SHARD_ROWS)):
            lines = [(item.name, item.subject, item.origin.text, item.text) for item in some]
            table = _table(_ROWS, list(zip(*lines, strict=True)))
            _add(content, table)
            _write(aside / f"rows-{number:05}.parquet", table, _ROWS_GROUP)
            names.append(table.select(_LISTED.names))
        listed = pa.concat_tables(names).sort_by("name")
        root = merkle_root(listed["name"].to_pylist())
        home = self._make(self._home(root))
        shards = sorted(aside.iterdir())
        for old in set(home.glob("rows-*.parquet")) - {home / shard.name for shard in shards}:
            old.unlink()
        for shard in shards:
            shard.replace(home / shard.name)
        aside.rmdir()
        _write(home / "names.parquet", listed.select(_NAMES.names), _NAMES_GROUP)
        return Sealed(root, content.digest, ledger_digest(_rows(listed)))

    def read(self, root: Digest) -> Iterator[Item]:
        return (Item(name, subject, origin_of(origin), text) for name, subject, origin, text in self._stored(root))

    def content(self, root: Digest) -> Digest:
        sealed = LinesDigest()
        for path in self._shards_of(root):
            for batch in _batches(path):
                _add(sealed, batch)
        return sealed.digest

    def _stored(self, root: Digest) -> Iterator[tuple[str, ...]]:
        for path in self._shards_of(root):
            yield from _read(path)

    def _shards_of(self, root: Digest) -> Iterator[Path]:
        self._listed(root)
        for path in sorted(self._home(root).glob("rows-*.parquet")):
            with _opened(path) as file:
                if file.schema_arrow.names != _ROWS.names:
                    raise Tampered(f"{path} lacks columns of rows: an earlier version wrote it; make the home anew")
            yield path

    def names(self, root: Digest) -> Sequence[tuple[Digest, str]]:
        return [(name, subject) for name, subject in _read(self._listed(root))]

    def holds(self, root: Digest, rows: Collection[Digest]) -> bool:
        path = self._home(root) / "names.parquet"
        if not path.exists():
            return False
        wanted = pa.array(list(rows), pa.string())
        with _opened(path) as file:
            return any(
                pc.any(pc.is_in(file.read_row_group(group, columns=["name"]).column(0), wanted)).as_py()
                for group in _groups(file, rows)
            )

    def quarantine(self, action_key: Digest, dropped: Iterable[tuple[Item, str]]) -> Digest:
        names = list[Digest]()

        def tables() -> Iterator[pa.Table]:
            for some in batched(dropped, _SHARD_ROWS):
                names.extend(item.name for item, _ in some)
                lines = ((item.name, item.subject, reason, item.text) for item, reason in some)
                yield _table(_DROPPED, list(zip(*lines, strict=True)))

        first = next(found := tables(), None)
        if first is not None:
            self._make(self.folder / "quarantine")
            _write_all(self._quarantined(action_key), _DROPPED, chain([first], found))
        return merkle_root(names)

    def read_quarantine(self, action_key: Digest) -> Iterator[tuple[Digest, str, str, Row]]:
        if self._quarantined(action_key).exists():
            for name, subject, reason, row in _read(self._quarantined(action_key)):
                yield name, subject, reason, json.loads(row)

    def held(self, subjects: Iterable[str]) -> Held:
        wanted = pa.array(sorted(set(subjects)), pa.string())
        sets = [path.parent.name for path in sorted(self.folder.glob("*/names.parquet")) if _rows_of(path, wanted)]
        quarantines = [path.stem for path in self._quarantines() if _rows_of(path, wanted)]
        content = sum(_rows_of(path, wanted) for path in self._shards())
        content += sum(_rows_of(path, wanted, but=_ERASED) for path in self._quarantines())
        return Held(tuple(f"sha256:{each}" for each in sets), tuple(f"sha256:{each}" for each in quarantines), content)

    def erase(self, subjects: Iterable[str]) -> None:
        """A quarantine keeps its rows' names, which its manifest counts on, and the code of why each was dropped."""
        wanted = pa.array(sorted(set(subjects)), pa.string())
        for left in list(self.folder.rglob(".*.part")):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        for path in self._shards():
            if _rows_of(path, wanted):
                table = pq.read_table(path)
                _write(path, table.filter(pc.invert(pc.is_in(table["subject"], wanted))), _ROWS_GROUP)
        for path in self._quarantines():
            if _rows_of(path, wanted, but=_ERASED):
                table = pq.read_table(path)
                gone = pc.is_in(table["subject"], wanted)
                codes = pc.list_element(pc.split_pattern(table["reason"], ":", max_splits=1), 0)
                reasons = pc.if_else(gone, pc.binary_join_element_wise(codes, "erased", ": "), table["reason"])
                rows = pc.if_else(gone, _ERASED, table["row"])
                _write(path, pa.table([table["name"], table["subject"], reasons, rows], schema=_DROPPED))

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("*/rows-*.parquet"))

    def _quarantines(self) -> list[Path]:
        return sorted((self.folder / "quarantine").glob("*.parquet"))

    def _listed(self, root: Digest) -> Path:
        path = self._home(root) / "names.parquet"
        if not path.exists():
            raise Missing(f"the rows of data set {root} are not in {self.folder}")
        return path

    def _quarantined(self, action_key: Digest) -> Path:
        return self.folder / "quarantine" / f"{hex_of(action_key)}.parquet"

    def _make(self, home: Path) -> Path:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return home

    def _home(self, root: Digest) -> Path:
        return self.folder / hex_of(root)


def _table(schema: pa.Schema, columns: Sequence[Sequence[str]]) -> pa.Table:
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], schema=schema)


def _rows_of(path: Path, subjects: pa.Array, but: str | None = None) -> int:
    """How many rows of a file are of these subjects (and, with ``but``, hold something else than this)."""
    table = pq.read_table(path, columns=["subject"] if but is None else ["subject", "row"])
    found = pc.is_in(table["subject"], subjects)
    if but is not None:
        found = pc.and_(found, pc.not_equal(table["row"], but))
    return int(pc.sum(found).as_py() or 0)


def _write(path: Path, table: pa.Table, group: int | None = None) -> None:
    _write_all(path, table.schema, [table], group)


def _write_all(path: Path, schema: pa.Schema, tables: Iterable[pa.Table], group: int | None = None) -> None:
    """Write to a neighbour, fsync, rename."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as handle:
            with pq.ParquetWriter(handle, schema, compression="zstd") as writer:
                for table in tables:
                    writer.write_table(table, group)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowInvalid, OSError) as error:
        raise Tampered(f"{path} cannot be read: {error}") from error


def _groups(file: pq.ParquetFile, names: Collection[Digest]) -> Iterator[int]:
    """The row groups that may hold one of these names."""
    wanted = sorted(names)
    for group in range(file.num_row_groups):
        ends = file.metadata.row_group(group).column(0).statistics
        nearest = bisect_left(wanted, ends.min)
        if nearest < len(wanted) and wanted[nearest] <= ends.max:
            yield group


def _read(path: Path) -> Iterator[tuple[str, ...]]:
    for batch in _batches(path):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _add(sealed: LinesDigest, rows: pa.Table | pa.RecordBatch) -> None:
    """A line a row, its columns joined by spaces, put together by Arrow instead of row by row."""
    line = pc.binary_join_element_wise(*rows.columns, " ")
    for chunk in line.chunks if isinstance(line, pa.ChunkedArray) else [line]:
        sealed.add_bytes(pc.binary_join_element_wise(chunk, "", "\n").buffers()[2])


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(_ROWS_GROUP)
    except (pa.ArrowInvalid, OSError) as error:
        raise Tampered(f"{path} cannot be read: {error}") from error


def _rows(table: pa.Table) -> Iterator[tuple[str, str, str]]:
    for batch in table.to_batches(_ROWS_GROUP):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
