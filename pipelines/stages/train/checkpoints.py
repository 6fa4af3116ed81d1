"""Checkpoints that are whole or do not count, on any fsspec store: the files of a step are written and synced, then a
seal with the digest of each. Resuming takes the newest one whose bytes match its seal."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from pydantic import ValidationError

from data_contracts.digests import Digest, DigestingWriter, canonical_json
from data_contracts.errors import Refused, Unavailable
from data_contracts.frozen import Frozen
from pipelines.stages.train.job import Trip

SEAL = "SEAL.json"
FACTS = "facts.json"
_KEEP = 2
_CHUNK = 1 << 22
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Content = Callable[[Any], object]
"""Writes a file's bytes to the handle that it is given."""


class StoreLost(Unavailable):
    """The store of checkpoints cannot be reached; what was sealed there is whole."""


class Facts(Frozen):
    """What a checkpoint says of its run, beside the trainer's own state.

    ``scheduled``: taken at a step that the recipe names; another one was taken because the run was told to stop.
    ``losses``, ``trips`` and ``probes`` are what the guards go on from.
    """

    step: int
    scheduled: bool
    recipe: Digest
    validation_loss: float | None
    losses: tuple[float, ...]
    trips: tuple[Trip, ...]
    probes: dict[str, float]


class Checkpoints:
    """The folders ``step-N`` below a URL or a path. Raises `StoreLost`, and `Refused` for a full disk."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = fsspec.url_to_fs(url, auto_mkdir=True)
        protocol = self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        self.local = "file" in protocol

    def write(self, step: int, files: Mapping[str, Content]) -> None:
        """Make these files the complete checkpoint of a step. When that fails, nothing of it stays where that can be
        helped; what else is there is not touched."""
        with self._speaking(f"checkpoint step-{step} was not written to {self.root}"):
            self._remove(step)  # a resumed run passes the steps of one that was not good enough to resume from
            try:
                digests = {name: self._put(f"{self._folder(step)}/{name}", files[name]) for name in sorted(files)}
                self._put(f"{self._folder(step)}/{SEAL}", lambda handle: handle.write(canonical_json(digests)))
            except BaseException:
                with suppress(OSError):
                    self._remove(step)
                raise
            if self.local:
                _sync(Path(self._folder(step)))
                _sync(Path(self.root))

    def write_folder(self, step: int, folder: Path) -> None:
        """As `write`, with the files of a folder."""
        self.write(step, {path.name: partial(_copy, path) for path in sorted(folder.iterdir())})

    def steps(self) -> list[int]:
        """Steps that something is there of, newest first."""
        with self._speaking(f"the checkpoints in {self.root} cannot be listed"):
            self.fs.invalidate_cache()
            if not self.fs.exists(self.root):
                return []
            names = [Path(path).name for path in self.fs.ls(self.root, detail=False)]
        return sorted((int(name[5:]) for name in names if name.startswith("step-")), reverse=True)

    def is_whole(self, step: int) -> bool:
        """Whether every byte is as it was sealed: nothing missing, cut, flipped or added."""
        return self._read(step, None)

    def fetch(self, step: int, folder: Path) -> bool:
        """Copy a checkpoint's files, not its seal, into a new folder; false, and no folder, when it is not whole."""
        folder.mkdir(parents=True)
        if self._read(step, folder):
            return True
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return False

    def facts(self, step: int) -> Facts | None:
        """Of a whole checkpoint; nothing where there are none or where they are of an earlier form."""
        try:
            return Facts.model_validate_json(self.fs.cat_file(f"{self._folder(step)}/{FACTS}"))
        except (FileNotFoundError, ValidationError):
            return None

    def delete(self, step: int) -> None:
        with self._speaking(f"checkpoint step-{step} was not deleted from {self.root}"):
            self._remove(step)

    def rotate(self) -> None:
        """Delete all but the last, the best validated and the newest two scheduled ones, and that only when the last,
        read again, is whole."""
        steps = self.steps()
        if not steps or not self.is_whole(steps[0]):
            return
        known = {step: facts for step in steps if (facts := self.facts(step))}
        scheduled = [step for step in known if known[step].scheduled]
        validated = [(loss, step) for step in known if (loss := known[step].validation_loss) is not None]
        kept = {steps[0], *scheduled[:_KEEP], *([min(validated)[1]] if validated else [])}
        for step in steps:
            if step not in kept:
                self.delete(step)

    def back_to_scheduled(self) -> None:
        """Delete what lies after the newest whole scheduled checkpoint: where a run was told to stop must not change
        where it is rolled back to."""
        for step in self.steps():
            if self.is_whole(step):
                facts = self.facts(step)
                if facts is None or facts.scheduled:
                    return
                self.delete(step)

    def _folder(self, step: int) -> str:
        return f"{self.root}/step-{step}"

    def _put(self, path: str, content: Content) -> Digest:
        with self.fs.open(path, "wb") as handle:
            digesting = DigestingWriter(handle)
            content(digesting)
            if self.local:
                handle.flush()
                os.fsync(handle.fileno())
        return digesting.digest

    def _read(self, step: int, into: Path | None) -> bool:
        folder = self._folder(step)
        with self._speaking(f"checkpoint step-{step} in {self.root} cannot be read"):
            try:
                sealed: dict[str, Digest] = json.loads(self.fs.cat_file(f"{folder}/{SEAL}"))
            except (FileNotFoundError, ValueError):
                return False
            there = {Path(path).relative_to(folder).as_posix() for path in self.fs.find(folder)}
            if not isinstance(sealed, dict) or there != {SEAL, *sealed}:
                return False
            return all(self._copied(f"{folder}/{name}", into and into / name) == sealed[name] for name in sealed)

    def _copied(self, path: str, target: Path | None) -> Digest:
        with self.fs.open(path, "rb") as source, (target or Path(os.devnull)).open("wb") as copy:
            digesting = DigestingWriter(copy)
            while chunk := source.read(_CHUNK):
                digesting.write(chunk)
        return digesting.digest

    def _remove(self, step: int) -> None:
        """The seal first: what is left of the rest when this is cut short does not count."""
        folder = self._folder(step)
        if self.fs.exists(f"{folder}/{SEAL}"):
            self.fs.rm_file(f"{folder}/{SEAL}")
        if self.fs.exists(folder):
            self.fs.rm(folder, recursive=True)

    @contextmanager
    def _speaking(self, failure: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if is_full(error):
                raise Refused(f"{failure}: the disk is full ({error}); {_REMEDY}") from error
            raise StoreLost(f"{failure}: {error}; {_REMEDY}") from error


_REMEDY = "earlier checkpoints are whole: see to that, then run the same again to go on from the last"


def is_full(error: BaseException) -> bool:
    """Whether a disk, a quota or a limit on file size is what stood in the way."""
    return isinstance(error, OSError) and error.errno in _FULL


def _copy(path: Path, handle: Any) -> None:
    with path.open("rb") as source:
        shutil.copyfileobj(source, handle, _CHUNK)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
