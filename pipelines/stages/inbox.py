"""Folders in which signed or asked-for documents wait for a sensor: one JSON file each, named by its digest."""

import os
import uuid
from pathlib import Path

from data_contracts.digests import canonical_json, hex_of
from data_contracts.frozen import Frozen


def submit(inbox: Path, document: Frozen) -> Path:
    """Lay a document in: whole or not at all, and the same one once."""
    inbox.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = place(inbox, document)
    part = inbox / f".{uuid.uuid4().hex}.part"
    with part.open("wb") as handle:
        handle.write(canonical_json(document.payload()))
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
    return path


def place(inbox: Path, document: Frozen) -> Path:
    return inbox / f"{hex_of(document.digest)}.json"


def waiting(inbox: Path) -> list[Path]:
    """What lies there, oldest first."""
    return sorted(inbox.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name))
