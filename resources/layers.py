"""A student made of its teacher's layers: some of a decoder's blocks are left out, the others keep their weights."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from data_contracts.errors import BadInput

_BLOCK = re.compile(r"^(?P<stack>.*\blayers)\.(?P<number>\d+)\.(?P<rest>.+)$")
_RANGE = re.compile(r"^(\d+)(?:-(\d+)(?:/(\d+))?)?$")
INDEX = "model.safetensors.index.json"


def parse_layers(text: str) -> tuple[int, ...]:
    """``0-3,8,10-28/2`` -> (0, 1, 2, 3, 8, 10, 12, ..., 28): numbers and ranges with both ends; ``/2``: every second.

    Raises `BadInput` for what is none, and for numbers that do not rise.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None or (match[3] and int(match[3]) == 0):
            raise BadInput(f"layers {text!r}: {part!r} is no number or range; write for example 0-3,8,10-28/2")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        numbers += range(first, last + 1, step)
    if not numbers or any(later <= earlier for earlier, later in pairwise(numbers)):
        raise BadInput(f"layers {text!r}: the numbers must rise, and each stand once")
    return tuple(numbers)


def keep_layers(folder: Path, layers: Sequence[int]) -> None:
    """Make the model in ``folder`` (safetensors and config.json) one of these layers of itself, renumbered from 0.

    The same bytes in give the same bytes out. Raises `BadInput` for a model whose blocks are not one stack named
    ``...layers.N.``, and for a layer that it does not have.
    """
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    count = config.get("num_hidden_layers")
    shards = sorted(folder.glob("*.safetensors"))
    found = {
        match.group("stack", "number") for shard in shards for name in _names(shard) if (match := _BLOCK.match(name))
    }
    if len({stack for stack, _ in found}) != 1 or len(found) != count:
        raise BadInput(
            f"{folder.name}: its {count} layers are not one stack of tensors named ...layers.N.: no such student"
        )
    if max(layers) >= count:
        raise BadInput(f"{folder.name} has layers 0 to {count - 1}, and no layer {max(layers)}")
    places = {old: new for new, old in enumerate(layers)}
    kept = {shard.name: _rewritten(shard, places) for shard in shards}
    if (folder / INDEX).is_file():
        _reindex(folder / INDEX, kept)
    config |= {key: [value[n] for n in layers] for key, value in config.items() if _by_layer(value, count)}
    config["num_hidden_layers"] = len(layers)
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _by_layer(value: object, count: int) -> bool:
    """Whether it says something of each layer, as ``layer_types`` does."""
    return isinstance(value, list) and len(value) == count


def _names(shard: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(shard, "pt") as tensors:
        return list(tensors.keys())


def _rewritten(shard: Path, places: dict[int, int]) -> list[str]:
    """Write the shard anew with the tensors that stay; their names. One without any is deleted."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(shard, "pt") as tensors:
        kept = {}
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            match = _BLOCK.match(name)
            if match is None:
                kept[name] = tensors.get_tensor(name)
            elif (old := int(match["number"])) in places:
                kept[f"{match['stack']}.{places[old]}.{match['rest']}"] = tensors.get_tensor(name)
    shard.unlink()
    if kept:
        save_file(kept, shard, metadata={"format": "pt"})
    return sorted(kept)


def _reindex(index: Path, kept: dict[str, list[str]]) -> None:
    sizes = sum((index.parent / shard).stat().st_size for shard, names in kept.items() if names)
    table = {name: shard for shard, names in kept.items() for name in names}
    index.write_text(
        json.dumps({"metadata": {"total_size": sizes}, "weight_map": table}, indent=2, sort_keys=True) + "\n"
    )
