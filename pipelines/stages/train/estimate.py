"""What a training run needs, reckoned from the shapes of the base and the recipe, without loading either."""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Literal

from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from pipelines.recipes.recipe import Recipe
from pipelines.stages.train.base import tensor_shapes
from pipelines.stages.train.hardware import Machine, this_machine
from pipelines.stages.train.job import TrainJob

SIDES = {"preference": 2, "kto": 2, "reward": 2}
"""Conversations that are computed for a row, where it is more than one."""
PROGRAM = 500_000_000
"""Bytes of the trainer itself with its libraries: measured with a model of 0.2 M parameters on a CPU."""
_VOCABULARY_TILE, _TOKEN_TILE = 32768, 4096
_TILES = {"cpu": 8, "gpu": 1}
"""TRL projects tokens onto the vocabulary in tiles of this size: its kernels for a GPU hold one, by their source; its
code for a CPU eight, as measured."""
_HELD_BACK = {"cpu": 1.3, "gpu": 1.0}
"""What comes and goes in a step takes this many times its size of resident memory: on a CPU, as measured with
`benchmarks/memory.py`, for blocks that the C library does not give back."""
_NF4 = 0.5 + 0.127 / 8
"""Bytes of a weight in 4-bit NormalFloat with double quantization (arXiv:2305.14314, section 3)."""
_OPTIMIZER = {"adamw_torch": 8, "adamw_torch_fused": 8, "paged_adamw_8bit": 2}
"""Bytes of optimizer states for each trained weight: two moments in float32, or in 8 bits (arXiv:2110.02861)."""
_LAYERS = ".layers."


class Shapes(Frozen):
    """A base's tensors by name, the bytes of their files, and the widths of its layers."""

    tensors: dict[str, tuple[int, ...]]
    file_bytes: int
    hidden: int
    intermediate: int
    keys: int
    layers: int
    vocabulary: int

    def linears(self) -> dict[str, tuple[int, ...]]:
        """Weights of the linear modules, (out, in) by module name; the last one may be the output layer."""
        return {
            name.removesuffix(".weight"): shape
            for name, shape in self.tensors.items()
            if name.endswith(".weight") and len(shape) == 2
        }


class Memory(Frozen):
    """Bytes at the peak of a step, by what holds them. ``file`` is the base's, which stays mapped on a CPU."""

    file: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    output: int
    program: int = PROGRAM

    @property
    def total(self) -> int:
        return sum(self.payload().values())


def shapes_of(folder: Path) -> Shapes:
    """From the headers of a base's safetensors files and its config.json. Raises `BadInput` for another layout."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
        config = config.get("text_config") or config
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        tensors = tensor_shapes(folder)
        if config.get("tie_word_embeddings"):
            tensors.pop("lm_head.weight", None)  # the same weights as those of the embedding
        return Shapes(
            tensors=tensors,
            file_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            keys=(config.get("num_key_value_heads") or heads) * size,
            layers=config["num_hidden_layers"],
            vocabulary=config["vocab_size"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{folder}: not a base that a run can be planned for, as of {error!r}") from error


def trained(shapes: Shapes, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Shapes of what the optimizer changes: every weight for ``full``, else the two factors of each target module as
    PEFT makes them, with a magnitude for each output for ``dora`` (arXiv:2402.09353). Raises `BadInput` when no module
    is a target."""
    if recipe.lora is None:
        return shapes.tensors
    made: dict[str, tuple[int, ...]] = {}
    for module, (outputs, inputs) in targeted(shapes, recipe.lora.targets).items():
        made[f"{module}.lora_A"] = (recipe.lora.rank, inputs)
        made[f"{module}.lora_B"] = (outputs, recipe.lora.rank)
        if str(recipe.method) == "dora":
            made[f"{module}.magnitude"] = (outputs,)
    return made


def targeted(shapes: Shapes, targets: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The modules that adapters are put on: those whose name is a target or ends with one."""
    linears = shapes.linears()
    found = {
        module: shape
        for module, shape in linears.items()
        if any(module == target or module.endswith(f".{target}") for target in targets)
    }
    if not found:
        known = ", ".join(sorted({module.rpartition(".")[2] for module in linears}))
        raise BadInput(f"lora.targets: the base has none of {', '.join(targets)}; its modules are {known}")
    return found


def size(tensors: dict[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in tensors.values())


def memory(shapes: Shapes, recipe: Recipe, tokens: int, kind: Literal["gpu", "cpu"]) -> Memory:
    """For ``tokens`` tokens in a batch (of pairs: on both sides).

    Weights, gradients and optimizer states as in ZeRO (arXiv:1910.02054, section 3.1), in the types that the trainer
    keeps them in. Activations by the same count as Korthikanti et al. (arXiv:2205.05198, section 4), made for a layer
    of Llama's kind whose attention keeps no scores: for each token and layer the inputs of modules and products that
    the backward pass reads; checked against what PyTorch saves by a test. Of one layer more, their gradients.
    """
    changed = trained(shapes, recipe)
    count = size(changed)
    activations = tokens * token_bytes(shapes, recipe)
    weights_read = 0
    if str(recipe.method) == "dora":  # the norm of W + BA is taken through two copies of each target's weight
        targets = targeted(shapes, recipe.lora.targets if recipe.lora else ())
        weights_read = 2 * 4 * sum(prod(shape) for shape in targets.values())
        activations += tokens * _width(recipe) * sum(shape[0] for shape in targets.values())
    layer = activations // shapes.layers
    if recipe.activation_checkpointing:
        activations = layer + tokens * shapes.hidden * _width(recipe) * shapes.layers
    tile = min(tokens, _TOKEN_TILE) * min(shapes.vocabulary, _VOCABULARY_TILE) * 4
    held = _HELD_BACK[kind]
    return Memory(
        file=shapes.file_bytes if kind == "cpu" else 0,
        weights=_weights(shapes, recipe, count),
        gradients=4 * count,
        optimizer=_states(recipe.optimizer, changed),
        activations=int(held * (activations + layer + weights_read)),
        output=int(held * _TILES[kind] * tile),
    )


def token_bytes(shapes: Shapes, recipe: Recipe) -> int:
    """Bytes of activations that are kept for each token of a batch, over all layers."""
    width, hidden = _width(recipe), shapes.hidden
    elements = 6 * hidden + 2 * shapes.keys + 4 * shapes.intermediate
    elements += 2 * (hidden - shapes.keys)  # keys and values for each of the heads that share them, under a mask
    kept = elements * width
    if recipe.precision == "bf16":
        kept += 12 * hidden  # the norms compute in float32
    if recipe.lora is None:
        kept += 2 * hidden * width  # what the norms put out, for the gradients of their weights
    else:
        kept += 7 * recipe.lora.rank * 4
        if recipe.lora.dropout > 0:
            kept += (6 * hidden + shapes.intermediate) * (width + 2)  # a dropped copy of every module's input
    return kept * shapes.layers


def _width(recipe: Recipe) -> int:
    """Bytes of a number in the precision that is computed in."""
    return 2 if recipe.precision == "bf16" else 4


def _weights(shapes: Shapes, recipe: Recipe, trained_count: int) -> int:
    total = size(shapes.tensors)
    in_layers = sum(prod(shape) for name, shape in shapes.linears().items() if _LAYERS in f".{name}.")
    if recipe.lora is None:
        # In float32; with bf16 the computation keeps copies of the weights of linear layers while a step lasts.
        return 4 * total + (2 * in_layers if recipe.precision == "bf16" else 0)
    adapter = 4 * trained_count
    if recipe.method == "qlora":
        return int(in_layers * _NF4) + (total - in_layers) * _width(recipe) + adapter
    return total * _width(recipe) + adapter


def _states(optimizer: str, changed: dict[str, tuple[int, ...]]) -> int:
    if optimizer in _OPTIMIZER:
        return _OPTIMIZER[optimizer] * size(changed)
    # Adafactor keeps sums of rows and columns in place of a matrix of second moments (arXiv:1804.04235, section 3).
    return sum(4 * (sum(shape) if len(shape) > 1 else prod(shape)) for shape in changed.values())


def check_fits(job: TrainJob, longest: int) -> None:
    """In the trainer, before it loads the base: raise `Refused` when batches of rows of ``longest`` tokens do not fit
    on this machine. Of a base that is laid out in another way nothing is reckoned."""
    machine = this_machine()
    try:
        shapes = shapes_of(job.base)
    except BadInput:
        return
    if machine is not None:
        if job.stage == "sft" and job.recipe.sft.packing:
            longest = job.recipe.max_length
        tokens = SIDES.get(job.stage, 1) * job.recipe.schedule(job.stage).batch_size * longest
        what = f"{job.stage} with rows of up to {longest} tokens"
        refuse_what_cannot_fit(memory(shapes, job.recipe, tokens, machine.kind), machine, what)


def refuse_what_cannot_fit(needed: Memory, machine: Machine | None, what: str) -> None:
    """Raise `Refused` with the remedy when the machine has less memory than is needed; of an unknown one nothing can be
    said."""
    if machine is None or needed.total <= machine.total:
        return
    place = "the GPU" if machine.kind == "gpu" else "the machine"
    raise Refused(
        f"{what} needs about {needed.total / 1e9:.1f} GB and {place} has {machine.total / 1e9:.1f} GB: weights "
        f"{needed.weights / 1e9:.1f}, gradients {needed.gradients / 1e9:.1f}, optimizer {needed.optimizer / 1e9:.1f}, "
        f"activations {needed.activations / 1e9:.1f}, output layer {needed.output / 1e9:.1f}. {_remedy(needed)}"
    )


def _remedy(needed: Memory) -> str:
    if needed.activations + needed.output > needed.total / 2:
        return "Lower batch_size and raise accumulate, lower max_length, or set activation_checkpointing: true"
    return "Use method lora or qlora, a smaller base, or a machine with more memory"
