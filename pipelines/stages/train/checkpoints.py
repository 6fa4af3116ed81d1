"""Checkpoints that are whole or do not count: files are synced, a seal with their digests is written last, then the
folder is renamed into place. Resuming takes the newest one whose bytes match its seal."""

import json
import os
import shutil
from pathlib import Path

from data_contracts.digests import Digest, canonical_json, tree_files

SEAL = "SEAL.json"
_KEEP = 2


def seal(folder: Path, target: Path) -> None:
    """Make ``folder`` the complete checkpoint ``target``, on the same disk."""
    files = tree_files(folder)
    for name in files:
        _sync(folder / name)
    part = folder / f"{SEAL}.part"
    part.write_bytes(canonical_json(files))
    _sync(part)
    part.rename(folder / SEAL)
    _sync(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        # A resumed run passes the steps of a checkpoint that was not good enough to resume from.
        shutil.rmtree(target)
    folder.rename(target)
    _sync(target.parent)


def is_whole(folder: Path) -> bool:
    """Whether every byte is as it was sealed: nothing missing, cut, flipped or added."""
    try:
        sealed: dict[str, Digest] = json.loads((folder / SEAL).read_bytes())
        found = tree_files(folder)
    except (OSError, ValueError):
        return False
    del found[SEAL]
    return found == sealed


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def in_order(checkpoints: Path) -> list[Path]:
    """Checkpoints by step, newest first."""
    return sorted(checkpoints.glob("step-*"), key=step_of, reverse=True)


def newest_whole(checkpoints: Path) -> tuple[Path | None, list[Path]]:
    """The checkpoint to resume from, and the newer ones that were passed over because they are damaged."""
    damaged: list[Path] = []
    for folder in in_order(checkpoints):
        if is_whole(folder):
            return folder, damaged
        damaged.append(folder)
    return None, damaged


def rotate(checkpoints: Path) -> None:
    """Delete all but the newest two, and only when the newest is whole."""
    ordered = in_order(checkpoints)
    if ordered and is_whole(ordered[0]):
        for folder in ordered[_KEEP:]:
            shutil.rmtree(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
