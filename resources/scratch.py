"""Folders for what must not lie on a disk: in memory, for this user only, and gone when their process is."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_MEMORY = Path("/dev/shm")


@contextmanager
def scratch(otherwise: Path, memory: Path = _MEMORY) -> Iterator[Path]:
    """A new folder, mode 0700, while the block runs; below ``otherwise`` where there is no file system in memory.

    The kernel frees the lock of a folder when its process dies; the next one to come here then deletes it.
    """
    root = _root(otherwise, memory)
    with FileLock(root / ".lock", mode=0o600):
        _sweep(root)
        folder = Path(tempfile.mkdtemp(dir=root))
        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def sweep(otherwise: Path, memory: Path = _MEMORY) -> None:
    """Delete the folders of processes that were killed."""
    root = _root(otherwise, memory)
    with FileLock(root / ".lock", mode=0o600):
        _sweep(root)


def _root(otherwise: Path, memory: Path) -> Path:
    """Somebody else's folder under our name in a shared place is not used."""
    for place in (memory / f"assay-{os.getuid()}", otherwise / "opened"):
        if place.parent == memory and not os.access(memory, os.W_OK):
            continue
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = place.lstat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o077 and not place.is_symlink():
            return place
    raise PermissionError(f"{otherwise / 'opened'} must be this user's, mode 0700: weights are opened there")


def _sweep(root: Path) -> None:
    for folder in root.iterdir():
        with suppress(OSError):  # another one's lock, or gone already
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)
