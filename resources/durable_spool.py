"""Lines on this machine's disk until their store took them: who adds one waits for one write into a file, for no store.

A file (segment) is locked while it is written to; who dies lets go of it. A thread hands the segments on, the oldest
first, again and again until they are taken, and deletes each when its lines are committed. Whoever is handed a segment
twice must know its lines again. What was written survives the process, not a power cut: nothing waits for the disk.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from data_contracts.frozen import Frozen
from data_contracts.traces import TraceCounts

LIMIT = 1 << 30
"""Bytes that may wait; what comes on top is lost, counted, and told in the log."""
SEGMENT = 1 << 20
_GATHER_S = 0.1
"""A batch waits so long for more, unless somebody waits for it."""
_LOOK_S = 1.0
"""Between looks after a segment that another process holds: it may die without handing it on."""
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""After failures in a row; the last for all that follow."""

Line = TypeVar("Line", bound=Frozen)

log = logging.getLogger(__name__)


class DurableSpool(Generic[Line]):
    """Of lines of one ``kind``, called ``name`` in messages. ``take`` is given a segment's name and its lines; it
    returns how many of them were new, and raises where they are to be brought again. ``segment``: the bytes at which a
    new one begins."""

    def __init__(
        self,
        folder: Path,
        kind: type[Line],
        take: Callable[[str, Sequence[Line]], int],
        limit: int = LIMIT,
        segment: int = SEGMENT,
        name: str = "traces",
    ) -> None:
        self.folder, self.limit, self.kind, self.name = folder, limit, kind, name
        self._take, self._most = take, segment
        self._changed = threading.Condition()
        """Guards all that follows."""
        self._file: int | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._hurry = 0
        self._full = False
        self._bytes = 0
        self._counts = TraceCounts(0, 0, 0, 0, 0)

    def counts(self) -> TraceCounts:
        return self._counts

    def left(self) -> Iterator[tuple[str, list[Line]]]:
        """The segments that wait, the oldest first, and what can be read of each."""
        for path in self._segments():
            yield path.name, self._read(path.read_bytes())[0]

    def start(self) -> None:
        """Begin to hand on what lies there, and then whatever comes."""
        with self._changed:
            if self._thread is None:
                found = self._segments()
                self._bytes = sum(path.stat().st_size for path in found)
                self._counts = self._counts._replace(waiting=sum(p.read_bytes().count(b"\n") for p in found))
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._hand_on, args=(self._stop,), name=f"spool of {self.name}", daemon=True
                )
                self._thread.start()

    def add(self, kept: Line) -> bool:
        """Whether it is in the spool. Returns at once."""
        line = kept.model_dump_json(exclude_unset=True).encode() + b"\n"
        with self._changed:
            try:
                if self._bytes + len(line) > self.limit:
                    raise OSError(f"{self._bytes} bytes wait there, which is the limit")
                self._write(line)
            except OSError as error:
                if not self._full:
                    log.error("%s are lost, until there is room again: %s: %s", self.name, self.folder, error)
                self._full = True
                self._count(lost=1)
                return False
            if self._full:
                log.warning("%s takes %s again; %d were lost so far", self.folder, self.name, self._counts.lost)
            self._full = False
            self._count(len(line), waiting=1)
            if self._counts.waiting == 1:
                self._changed.notify_all()
            return True

    def flush(self, seconds: float = 30) -> bool:
        """Whether all that was added is handed on."""
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._counts.waiting, seconds)
            finally:
                self._hurry -= 1

    def close(self, seconds: float) -> None:
        """End, after so long at most; what is not handed on by then lies there for the next process."""
        if self._thread is None:
            return
        self.flush(seconds)
        self._stop.set()
        with self._changed:
            self._let_go()
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        thread.join(_GATHER_S)  # so that it lets go of what it was handing on, unless its store hangs

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self._file = self._segment()
        before = os.lseek(self._file, 0, os.SEEK_END)
        written = os.write(self._file, line)
        if written < len(line):
            os.ftruncate(self._file, before)
            raise OSError("the disk is full")
        if before + written >= self._most:
            self._let_go()

    def _segment(self) -> int:
        """A new one, locked before anybody can see it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{os.getpid()}"
        file = os.open(self.folder / f"{name}.new", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        os.rename(self.folder / f"{name}.new", self.folder / f"{name}.jsonl")
        return file

    def _let_go(self) -> bool:
        """End the segment that is written to, so that it can be handed on. Whether there was one."""
        if self._file is None:
            return False
        os.close(self._file)
        self._file = None
        return True

    def _hand_on(self, stop: threading.Event) -> None:
        failures = 0
        while not stop.is_set():
            with self._changed:
                look = _LOOK_S if self._segments() else None
                self._changed.wait_for(lambda: self._counts.waiting or stop.is_set(), look)
                self._changed.wait_for(lambda: self._hurry or stop.is_set(), _GATHER_S)
            try:
                self._empty(stop)
            except Exception as error:
                if not failures:
                    log.warning("%s wait in %s, to be brought to their store again: %r", self.name, self.folder, error)
                stop.wait(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1
                continue
            if failures:
                log.warning("the %s that waited in %s are stored", self.name, self.folder)
            failures = 0

    def _empty(self, stop: threading.Event) -> None:
        """Hand on all there is. Raises what `take` does."""
        while not stop.is_set():
            done = [self._deliver(path) for path in self._segments()]
            if any(done):
                continue
            with self._changed:
                if not self._let_go():  # nothing is left but what another process holds
                    self._counts = self._counts._replace(waiting=0)
                    self._bytes = 0
                    self._changed.notify_all()
                    return

    def _deliver(self, path: Path) -> bool:
        """Whether it was ours to hand on, and is."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, FileNotFoundError):
                return False  # it is written to, or another process took it
            if not os.fstat(file.fileno()).st_nlink:
                return False
            data = file.read()
            kept, torn, strange = self._read(data)
            new = self._take(path.name, kept) if kept else 0
            if strange:
                path.rename(path.with_suffix(".unreadable"))
                log.error("%d lines are no %s: see %s", strange, self.name, path.with_suffix(".unreadable"))
            else:
                path.unlink()
        with self._changed:
            self._count(
                -len(data),
                waiting=-len(kept) - strange,
                stored=new,
                duplicate=len(kept) - new,
                torn=torn,
                lost=strange,
            )
            self._changed.notify_all()
        return True

    def _segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def _count(self, size: int = 0, **more: int) -> None:
        self._bytes += size
        self._counts = self._counts._replace(**{name: getattr(self._counts, name) + n for name, n in more.items()})

    def _read(self, data: bytes) -> tuple[list[Line], int, int]:
        """The lines; whether the last one was cut short; how many whole ones are none of this kind."""
        *lines, rest = data.split(b"\n")
        kept: list[Line] = []
        for line in lines:
            try:
                kept.append(self.kind.model_validate_json(line))
            except ValidationError:
                continue
        return kept, int(bool(rest)), len(lines) - len(kept)
