"""SQLite files that several processes share: write-ahead log, patient locks, readable by their owner only."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from data_contracts.errors import Unavailable

_TRIES = 100


def create(path: Path, script: str) -> None:
    """Make the file (mode 0600) and run the idempotent ``script`` of ``create ... if not exists``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    # SQLite does not wait where several change the journal mode of a new file at once.
    with FileLock(f"{path}.lock", mode=0o600), connect(path) as connection:
        connection.execute("pragma journal_mode = wal")
        connection.executescript(script)


def open_file(path: Path, shared: bool = False) -> sqlite3.Connection:
    """A connection that waits for others; ``shared``: several threads use it, one at a time."""
    return sqlite3.connect(path, timeout=60, check_same_thread=not shared)


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own, committed at the end, rolled back on an error."""
    connection = open_file(path)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def empty_log(path: Path) -> None:
    """Write what the write-ahead log holds into the file and cut it to nothing: it may hold bytes that were deleted.
    Raises `Unavailable` when other processes keep reading from it."""
    for _ in range(_TRIES):
        with connect(path) as connection:
            busy, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
        if not busy:
            return
        time.sleep(0.1)
    raise Unavailable(f"{path} is being read without a pause: deleted bytes stay in its log; try again")
