"""A base and an adapter as one plain model folder, which any server of safetensors loads."""

import json
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path

from evals.protocols import ChatModel
from pipelines.stages.release.export import Source
from resources.local_model import LocalModel, adapted


class MergedModel:
    """Implements `pipelines.stages.release.export.Exporter`."""

    format = "merged"

    def tools(self) -> dict[str, str]:
        return {name: version(name) for name in ("peft", "safetensors", "torch", "transformers")}

    def write(self, source: Source, folder: Path) -> None:
        write_merged(source, folder)

    def open(self, folder: Path) -> ChatModel:
        return LocalModel(folder)


def write_merged(source: Source, folder: Path) -> None:
    """Weights, configuration, tokenizer and chat template into ``folder``, which is there. The sums are made in float32
    and rounded once, to the precision of the base: equal sources give equal bytes."""
    files = source.weights if source.whole else source.base
    for path in sorted(files.iterdir()):
        if source.whole or not path.name.startswith("model"):
            shutil.copyfile(path, folder / path.name)
    if not source.whole:
        _merge(source.base, source.weights, folder)
    (folder / "chat_template.jinja").write_text(source.template)


def _merge(base: Path, adapter: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    named = json.loads((base / "config.json").read_bytes())["dtype"]
    with warnings.catch_warnings(action="ignore"):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        merged = adapted(model, adapter).merge_and_unload(safe_merge=True)
    merged.to(getattr(torch, named)).save_pretrained(folder)
