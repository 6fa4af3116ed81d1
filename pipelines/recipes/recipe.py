"""A recipe file: how a model is trained. Every field acts; a key that is not listed here is an error."""

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen

FOLDER = Path(__file__).parent

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
SMOOTHED: frozenset[str] = frozenset({"robust", "exo_pair"})


class Lora(Frozen):
    """Low-rank adapters (Hu et al., 2021, arXiv:2106.09685): W + alpha / rank * B A on every module in ``targets``."""

    rank: int = Field(ge=1, le=256)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    targets: tuple[str, ...] = Field(min_length=1)


class Guards(Frozen):
    """When to stop before the optimizer takes a step. NaN and infinity always stop."""

    max_loss_ratio: float = Field(gt=1)
    """Stop when the loss exceeds this many times the median of the last ``window`` losses."""
    window: int = Field(ge=2)
    max_grad_norm: float = Field(gt=0)
    """Stop when the gradient norm, before clipping, exceeds this."""


class Schedule(Frozen):
    """One run of the optimizer over ``steps`` steps of ``batch_size`` * ``accumulate`` rows."""

    learning_rate: float = Field(gt=0)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    warmup_steps: int = Field(ge=0)
    scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"]
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    checkpoint_every: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    eval_rows: int = Field(ge=1)

    @model_validator(mode="after")
    def _ends_with_an_evaluation(self) -> Self:
        if self.steps % self.eval_every:
            raise ValueError(f"eval_every {self.eval_every} must divide steps {self.steps}: the last step is evaluated")
        return self


class Preference(Frozen):
    """DPO (Rafailov et al., 2023, arXiv:2305.18290) and its relatives; several loss types are summed."""

    loss_type: tuple[LossType, ...] = Field(min_length=1)
    beta: float = Field(gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    schedule: Schedule

    @model_validator(mode="after")
    def _smoothing_acts(self) -> Self:
        if bool(SMOOTHED & set(self.loss_type)) != (self.label_smoothing > 0):
            raise ValueError(f"label_smoothing is for the loss types {sorted(SMOOTHED)}, which need it, and no other")
        return self


class Recipe(Frozen):
    """``preference`` may be null: then the model is what SFT left."""

    method: Literal["full", "lora", "qlora"]
    precision: Literal["auto", "bf16", "fp32"]
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit", "adafactor"]
    seed: int = Field(ge=0)
    max_length: int = Field(ge=16)
    activation_checkpointing: bool
    lora: Lora | None
    guards: Guards
    sft: Schedule
    preference: Preference | None

    @model_validator(mode="after")
    def _lora_where_it_acts(self) -> Self:
        if (self.lora is None) != (self.method == "full"):
            raise ValueError("lora is needed for the methods lora and qlora, and must be null for full")
        return self

    def resolved(self, native_bf16: bool) -> "Recipe":
        """With ``auto`` made definite, so that its digest says what was computed: processors without bfloat16
        instructions emulate them ten times slower than float32."""
        definite = "bf16" if native_bf16 else "fp32"
        return self.model_copy(update={"precision": definite}) if self.precision == "auto" else self

    def for_sft(self) -> "Recipe":
        """The part that SFT depends on: a change of the preference section leaves its result valid."""
        return self.model_copy(update={"preference": None})


def load_recipe(name: str | Path) -> Recipe:
    """Read ``pipelines/recipes/NAME.yaml``, or a path to a recipe file.

    Raises `BadInput` that names the file and the key.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise BadInput(f"no recipe {str(name)!r}: no file {path} (known recipes: {known})")
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise BadInput(f"{path}: {found}") from error
