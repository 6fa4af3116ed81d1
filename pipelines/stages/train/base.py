"""What training needs of a base model: where it is found, and its plain tree."""

import json
from math import prod
from pathlib import Path
from typing import Protocol

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen


class BaseOrigin(Frozen):
    """A base as found. ``content`` names its bytes at the origin; ``path`` is a GGUF file or a folder on this disk.
    ``layers`` are those that a student keeps of it; none: all."""

    name: str
    source: str
    licence: str
    content: Digest
    path: Path
    layers: tuple[int, ...] = ()


class BaseSource(Protocol):
    def locate(self, source: str) -> BaseOrigin:
        """Find ``package:NAME``, a folder, a hub id, or ``pruned:LAYERS:`` and one of them, without converting it."""
        ...

    def write(self, origin: BaseOrigin, folder: Path) -> None:
        """Write weights (safetensors), tokenizer and configuration, without a chat template, into ``folder``."""
        ...


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in the safetensors files of a folder, from their headers (8 bytes of length, then JSON)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        shapes |= {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
    return shapes


def count_parameters(folder: Path) -> int:
    """Parameters in the safetensors files of a folder."""
    return sum(prod(shape) for shape in tensor_shapes(folder).values())
