"""Rows in an order of their own, in memory up to 10,000, beyond that in sorted runs on disk (external merge sort)."""

import heapq
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.ledger import Origin
from pipelines.stages.data.item import Item

_RUN = 10_000
_READ = 512
_COLUMNS = pa.schema([(name, pa.string()) for name in ("order", "name", "note", "subject", "origin", "row", "content")])
Line = tuple[str, str, str, str, str, str, str]


class Spool:
    """Collects items, then gives them back in order as often as is wished. Runs lie in files without a name, which go
    with the process: neither a crash nor an erasure finds rows in them afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fresh: list[Line] = []
        self._runs: list[IO[bytes]] = []

    def close(self) -> None:
        for run in self._runs:
            run.close()

    def add(self, item: Item, order: str, note: str = "") -> None:
        self._fresh.append((order, item.name, note, item.subject, item.origin.text, item.text, item.content))
        if len(self._fresh) == _RUN:
            self._spill()

    def __iter__(self) -> Iterator[tuple[Item, str]]:
        """By order, then name."""
        self._fresh.sort()
        lines = heapq.merge(*map(_read, self._runs), self._fresh, key=itemgetter(0, 1)) if self._runs else self._fresh
        for _, name, note, subject, origin, text, content in lines:
            yield Item(name, subject, origin_of(origin), text).known_as(content), note

    def _spill(self) -> None:
        self._fresh.sort()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        run = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the spool
        self._runs.append(run)
        columns = [pa.array(column, pa.string()) for column in zip(*self._fresh, strict=True)]
        pq.write_table(pa.Table.from_arrays(columns, schema=_COLUMNS), run, compression="lz4", row_group_size=_READ)
        self._fresh = []


def _read(run: IO[bytes]) -> Iterator[Line]:
    with pq.ParquetFile(run) as file:
        for batch in file.iter_batches(_READ):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@lru_cache(maxsize=4096)
def origin_of(text: str) -> Origin:
    return Origin.model_validate_json(text)
