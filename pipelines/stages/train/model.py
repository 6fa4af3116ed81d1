"""The model that is trained, and the weights that are left: an adapter, or the whole model for ``method: full``."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

from data_contracts.errors import BadInput
from pipelines.stages.train.job import TrainJob


def load_tokenizer(job: TrainJob) -> Any:
    """The base's tokenizer with the product's chat template."""
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    tokenizer.chat_template = job.template.read_text()
    return tokenizer


def load_model(job: TrainJob) -> Any:
    """The base, or the parent, ready to train. Draws random numbers: seed first."""
    recipe = job.recipe
    scores = job.stage == "reward"
    load, head = (AutoModelForSequenceClassification, {"num_labels": 1}) if scores else (AutoModelForCausalLM, {})
    if recipe.method == "full":
        # Master weights stay in float32; with precision bf16 only the computation is autocast.
        return load.from_pretrained(job.parent or job.base, dtype=torch.float32, **head)
    base = load.from_pretrained(job.base, dtype=_computed_in(job), **head, **_quantized(job))
    if job.parent is not None and not scores:
        adapted = PeftModel.from_pretrained(base, job.parent, is_trainable=True)
        adapted.peft_config["default"].base_model_name_or_path = str(job.base)  # it holds our digest, not a place
        return adapted
    lora = recipe.lora
    if lora is None:
        raise BadInput(f"method {recipe.method} needs a lora section in the recipe")
    config = LoraConfig(
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        use_dora=recipe.method == "dora",
    )
    adapted = get_peft_model(base, config)
    if job.parent is not None:  # the head that scores is new, the adapter is the parent's
        parent = load_file(job.parent / "adapter_model.safetensors")
        set_peft_model_state_dict(adapted, get_peft_model_state_dict(adapted) | parent)
    return adapted


def load_frozen_base(job: TrainJob) -> Any:
    return AutoModelForCausalLM.from_pretrained(job.base, dtype=_computed_in(job))


def load_teacher(job: TrainJob, tokenizer: Any) -> Any:
    """The model that is learned from. Raises `BadInput` where its tokens are not the student's."""
    if job.teacher is None:
        raise BadInput("a distill run needs the folder of its teacher in the job")
    if AutoTokenizer.from_pretrained(job.teacher).get_vocab() != tokenizer.get_vocab():
        raise BadInput(
            "distill.teacher has another vocabulary than the base: name a teacher of the same family, or learn from "
            "the texts that it writes"
        )
    return AutoModelForCausalLM.from_pretrained(job.teacher, dtype=_computed_in(job))


def _computed_in(job: TrainJob) -> torch.dtype:
    return torch.bfloat16 if job.recipe.precision == "bf16" else torch.float32


def _quantized(job: TrainJob) -> dict[str, Any]:
    """Load options for QLoRA: 4-bit NormalFloat with double quantization (arXiv:2305.14314, sections 3 and 4)."""
    if job.recipe.method != "qlora":
        return {}
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=_computed_in(job),
            llm_int8_skip_modules=["score"] if job.stage == "reward" else None,
        ),
        "device_map": {"": 0 if torch.cuda.is_available() else "cpu"},
    }


def save_weights(model: Any, tokenizer: Any, job: TrainJob, folder: Path) -> None:
    """Write what serving loads. Equal training gives equal bytes: no path, no time.

    Adapters: ``adapter_model.safetensors`` and ``adapter_config.json``, which names the base by its digest.
    ``full``: a whole model folder in bfloat16 (or float32, by ``precision``), without a chat template.
    """
    folder.mkdir(parents=True)
    if job.recipe.method == "full":
        _save_whole(model, tokenizer, job, folder)
        return
    model.save_pretrained(folder, selected_adapters=["default"])
    config_file = folder / "adapter_config.json"
    config = json.loads(config_file.read_text())
    config |= {"base_model_name_or_path": job.base_digest, "target_modules": sorted(config["target_modules"])}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in folder.iterdir():
        if path.name not in ("adapter_model.safetensors", "adapter_config.json"):
            path.unlink()
        else:
            path.chmod(0o644)


def _save_whole(model: Any, tokenizer: Any, job: TrainJob, folder: Path) -> None:
    dtype = _computed_in(job)
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text()) | {"dtype": str(dtype).removeprefix("torch.")}
    config.pop("_name_or_path", None)
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*chat_template*"):
        path.unlink()
    for path in folder.iterdir():
        path.chmod(0o644)
