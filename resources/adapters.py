"""LoRA adapters as files: what may be served on a base, and the all-zero adapter through which the base answers.

Only safetensors headers are read (8 bytes of length, then JSON); no tensor library is needed.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest, canonical_json, hex_of
from data_contracts.errors import BadInput, Refused
from pipelines.stages.serve.capacity import TARGET_MODULES

_TENSOR = re.compile(r"^base_model\.model\..+\.(?P<module>[A-Za-z0-9_]+)\.lora_[AB]\.weight$")
_PREFIX = "base_model.model."


def served_name(weights: Digest) -> str:
    """The name an adapter is served under: it says which bytes answer, and never binds others."""
    return f"adapter-{hex_of(weights)}"


def check_adapter(folder: Path, base: Digest, max_rank: int) -> None:
    """Refuse an adapter tree that this base's server would load wrongly, partly or not at all.

    ``base`` is the digest of the base's manifest, which training wrote into ``adapter_config.json``.
    """
    config = _config(folder)
    trained_on = config.get("base_model_name_or_path")
    if trained_on != base:
        raise Refused(f"adapter {folder.name} was trained on base {trained_on}, and the server runs base {base}")
    if config.get("modules_to_save"):
        raise Refused(
            f"adapter {folder.name} replaces whole modules ({config['modules_to_save']}): it cannot be served"
        )
    if config.get("rank_pattern") or config.get("use_dora") or config.get("bias", "none") != "none":
        raise Refused(f"adapter {folder.name} uses rank patterns, DoRA or bias: only plain LoRA is served")
    rank = config.get("r")
    if not isinstance(rank, int) or not 0 < rank <= max_rank:
        raise Refused(f"adapter {folder.name} has rank {rank}, the server takes 1 to {max_rank} (ASSAY_SERVE_MAX_RANK)")
    for name, shape in _shapes(folder / "adapter_model.safetensors").items():
        match = _TENSOR.match(name)
        if match is None or match["module"] not in TARGET_MODULES:
            raise Refused(f"adapter {folder.name} adapts {name}: the server takes only {', '.join(TARGET_MODULES)}")
        if rank not in shape:
            raise Refused(f"adapter {folder.name}: {name} has shape {shape}, which does not fit rank {rank}")


def write_zero_adapter(base_folder: Path, base: Digest, folder: Path) -> None:
    """Write the rank-1 adapter of zeros for a base: equal bytes for equal bases, and no effect on any answer."""
    tensors: dict[str, tuple[int, int]] = {}
    for path in sorted(base_folder.glob("*.safetensors")):
        for name, shape in _shapes(path).items():
            module = name.removesuffix(".weight")
            if module.rsplit(".", 1)[-1] in TARGET_MODULES and len(shape) == 2:
                tensors[f"{_PREFIX}{module}.lora_A.weight"] = (1, shape[1])
                tensors[f"{_PREFIX}{module}.lora_B.weight"] = (shape[0], 1)
    if not tensors:
        raise BadInput(f"{base_folder} has none of the linear layers {', '.join(TARGET_MODULES)}: it cannot be served")
    folder.mkdir(parents=True)
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "lora_alpha": 1,
        "peft_type": "LORA",
        "r": 1,
        "target_modules": sorted({name.split(".")[-3] for name in tensors}),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_bytes(canonical_json(config))
    (folder / "adapter_model.safetensors").write_bytes(_zeros(sorted(tensors.items())))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} is not a LoRA adapter: adapter_config.json cannot be read ({error})") from error
    return config


def _shapes(path: Path) -> dict[str, list[int]]:
    """Tensor name -> shape, from the header of one safetensors file."""
    try:
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is not a safetensors file ({error})") from error
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def _zeros(shapes: Iterable[tuple[str, tuple[int, int]]]) -> bytes:
    """A safetensors file of bfloat16 zeros."""
    header: dict[str, Any] = {}
    offset = 0
    for name, (rows, columns) in shapes:
        end = offset + 2 * rows * columns
        header[name] = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [offset, end]}
        offset = end
    encoded = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + bytes(offset)
