"""What a run needs: counts as PEFT makes them, activations as PyTorch saves them, and a refusal with the remedy."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import BadInput, Refused
from pipelines.stages.train.estimate import (
    Shapes,
    memory,
    refuse_what_cannot_fit,
    shapes_of,
    size,
    token_bytes,
    trained,
)
from pipelines.stages.train.hardware import Machine, machine_name, this_machine
from tests.support.tiny import make_tiny_base
from tests.support.training import make_recipe

# PEFT asks transformers by a name that transformers will drop.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def lora(rank: int, targets: list[str], dropout: float = 0.0) -> dict[str, Any]:
    return {"rank": rank, "alpha": 8, "dropout": dropout, "targets": targets}


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], TARGETS, ["self_attn.o_proj", "down_proj"]])
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_trained_parameters_are_as_many_as_peft_makes(base: Path, method: str, targets: list[str]) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(task_type="CAUSAL_LM", r=5, target_modules=targets, use_dora=method == "dora")
    trainable, everything = get_peft_model(model, config).get_nb_trainable_parameters()
    shapes = shapes_of(base)
    recipe = make_recipe("lora", lora=lora(5, targets)).model_copy(update={"method": method})
    counted = size(trained(shapes, recipe))
    assert (counted, counted + size(shapes.tensors)) == (trainable, everything)


def test_of_a_whole_model_every_weight_is_trained_and_tied_ones_once(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base)
    assert size(trained(shapes_of(base), make_recipe("full"))) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_what_pytorch_saves(method: str, masked: bool, dropout: float) -> None:
    """Of a layer of Llama's kind whose heads share keys and values, in float32; the estimate counts with a mask."""
    recipe = make_recipe(method, **({} if method == "full" else {"lora": lora(8, TARGETS, dropout)}))
    shapes = Shapes(tensors={}, file_bytes=0, hidden=96, intermediate=256, keys=32, layers=1, vocabulary=64)
    saved = (_saved_bytes(shapes, recipe, 3, masked) - _saved_bytes(shapes, recipe, 1, masked)) / 2 / 64
    assert saved == pytest.approx(token_bytes(shapes, recipe), rel=0.15)


def _saved_bytes(shapes: Shapes, recipe: Any, layers: int, masked: bool) -> int:
    """Bytes of the tensors that a forward pass over two rows of 32 tokens keeps for the backward pass."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shapes.vocabulary,
        hidden_size=shapes.hidden,
        intermediate_size=shapes.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=3,
        num_key_value_heads=1,
    )
    model: Any = LlamaModel(config)
    if recipe.lora is not None:
        adapters = LoraConfig(r=recipe.lora.rank, lora_dropout=recipe.lora.dropout, target_modules=TARGETS)
        model = get_peft_model(model, adapters)
    model.train()
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)  # so that no place in memory is used twice
        return tensor

    ids = torch.zeros(2, 32, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[0, -5 if masked else 32 :] = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(seen.values())


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_what_saves_memory_lowers_the_estimate(base: Path, kind: Any) -> None:
    shapes = shapes_of(base)
    whole = memory(shapes, make_recipe("full"), 4096, kind)
    adapted = memory(shapes, make_recipe("lora"), 4096, kind)
    quantized = memory(shapes, make_recipe("qlora"), 4096, kind)
    recomputed = memory(shapes, make_recipe("lora", activation_checkpointing=True), 4096, kind)
    assert whole.gradients + whole.optimizer > adapted.gradients + adapted.optimizer
    assert quantized.weights < adapted.weights
    assert recomputed.activations < adapted.activations
    assert memory(shapes, make_recipe("lora"), 8192, kind).activations > adapted.activations
    assert memory(shapes, make_recipe("full", optimizer="adafactor"), 64, kind).optimizer < whole.optimizer / 10


@pytest.mark.parametrize(("method", "tokens", "remedy"), [("lora", 10**7, "batch_size"), ("full", 1, "lora")])
def test_what_cannot_fit_is_refused_with_what_to_change(base: Path, method: str, tokens: int, remedy: str) -> None:
    needed = memory(shapes_of(base), make_recipe(method), tokens, "cpu")
    machine = Machine(kind="cpu", total=needed.total - 1, free=0)
    with pytest.raises(Refused, match=remedy):
        refuse_what_cannot_fit(needed, machine, "sft")
    refuse_what_cannot_fit(needed, machine.model_copy(update={"total": needed.total}), "sft")
    refuse_what_cannot_fit(needed, None, "sft")


def test_a_target_that_no_module_has_is_named_with_those_there_are(base: Path) -> None:
    with pytest.raises(BadInput, match=r"c_attn.*down_proj.*q_proj"):
        trained(shapes_of(base), make_recipe("lora", lora=lora(4, ["c_attn"])))


def test_another_layout_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768}))
    with pytest.raises(BadInput, match="num_attention_heads"):
        shapes_of(tmp_path)


def test_a_containers_limit_is_the_machines_memory(tmp_path: Path) -> None:
    memory_file, limit, no_gpu = tmp_path / "meminfo", tmp_path / "memory.max", tmp_path / "none"
    memory_file.write_text("MemTotal:       8000000 kB\nMemAvailable:   6000000 kB\n")
    limit.write_text("max\n")
    assert this_machine(memory_file, (limit,), no_gpu) == Machine(kind="cpu", total=8192000000, free=6144000000)
    limit.write_text("1000000000\n")
    assert this_machine(memory_file, (limit,), no_gpu) == Machine(kind="cpu", total=10**9, free=10**9)
    assert this_machine(no_gpu, (limit,), no_gpu) is None


def test_a_machine_is_called_by_its_processor_and_the_cores_that_may_be_used(tmp_path: Path) -> None:
    cpu, none = tmp_path / "cpuinfo", tmp_path / "none"
    cpu.write_text("processor\t: 0\nmodel name\t: Quick 9000\nprocessor\t: 1\nmodel name\t: Quick 9000\n")
    cores = len(os.sched_getaffinity(0))
    assert machine_name(cpu, none) == f"Quick 9000, {cores} cores"
    assert machine_name(none, none) == f"{platform.machine()}, {cores} cores"
