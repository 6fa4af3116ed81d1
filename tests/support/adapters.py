"""Random LoRA adapters for any base folder, strong enough that each answers visibly differently."""

import json
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest
from data_contracts.store import ArtifactStore
from pipelines.stages.serve.capacity import TARGET_MODULES
from tests.support.tiny import make_tiny_base


def tiny_base(store: ArtifactStore, folder: Path, seed: int = 0) -> BaseManifest:
    """The tiny base in the store, with its manifest."""
    tree = store.put_tree(make_tiny_base(folder, seed))
    base = BaseManifest(name=f"tiny-{seed}", source="folder", licence="none", tree=tree, parameters=200_000)
    store.put_manifest(base)
    return base


def write_adapter(
    base_folder: Path, base: Digest, folder: Path, seed: int, rank: int = 4, scale: float = 2.0, **config: object
) -> Path:
    """Write a PEFT adapter with normal random weights on all linear layers. ``scale``: how loudly it speaks."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    with safe_open(base_folder / "model.safetensors", "pt") as weights:
        for name in sorted(weights.keys()):
            module = name.removesuffix(".weight")
            if module.rsplit(".", 1)[-1] in TARGET_MODULES:
                rows, columns = weights.get_slice(name).get_shape()
                prefix = f"base_model.model.{module}"
                tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, columns, generator=draw) / columns**0.5
                tensors[f"{prefix}.lora_B.weight"] = torch.randn(rows, rank, generator=draw) * scale / rank**0.5
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    described = {
        "base_model_name_or_path": base,
        "bias": "none",
        "lora_alpha": rank,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(TARGET_MODULES),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(described | config))
    return folder


def tiny_adapter(store: ArtifactStore, base: BaseManifest, scratch: Path, seed: int, **config: object) -> Digest:
    """A random adapter for this base, in the store."""
    name = f"adapter-{seed}-{abs(hash(str(sorted(config.items()))))}"
    rank = config.pop("r", 4)
    assert isinstance(rank, int)
    return store.put_tree(write_adapter(store.tree(base.tree), base.digest, scratch / name, seed, rank, **config))
