"""What training needs of a base model: where it is found, and its plain tree."""

import json
from math import prod
from pathlib import Path
from typing import Protocol

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen


class BaseOrigin(Frozen):
    """A base as found. ``content`` names its bytes at the origin; ``path`` is a GGUF file or a folder on this disk."""

    name: str
    source: str
    licence: str
    content: Digest
    path: Path


class BaseSource(Protocol):
    def locate(self, source: str) -> BaseOrigin:
        """Find ``package:NAME``, a folder or a hub id, without converting it."""
        ...

    def write(self, origin: BaseOrigin, folder: Path) -> None:
        """Write weights (safetensors), tokenizer and configuration, without a chat template, into ``folder``."""
        ...


def count_parameters(folder: Path) -> int:
    """Parameters in the safetensors files of a folder, from their headers (8 bytes of length, then JSON)."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total
