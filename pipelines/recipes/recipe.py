"""A recipe file: how a model is trained. Every field acts; a key that is not listed here is an error."""

from difflib import get_close_matches
from pathlib import Path
from typing import Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.manifests import Method, Stage
from pipelines.recipes.objectives import Distill, Grpo, Kto, Preference, RewardModel, Schedule, Section, Sft

FOLDER = Path(__file__).parent
TUNING: tuple[Stage, ...] = ("preference", "kto", "reward", "grpo", "distill")
"""The objectives of which one may follow SFT."""


class Lora(Frozen):
    """Low-rank adapters (Hu et al., 2021, arXiv:2106.09685): W + alpha / rank * B A on every module in ``targets``."""

    rank: int = Field(ge=1, le=256)
    alpha: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)
    targets: tuple[str, ...] = Field(min_length=1)


Action = Literal["abort", "skip", "roll_back"]


class GuardActions(Frozen):
    """What a guard that trips does. ``abort`` ends the run. ``skip`` drops the update of this step. ``roll_back`` goes
    back to the newest scheduled checkpoint and on from there with a lower learning rate."""

    not_finite: Action = "abort"
    """A loss or a gradient norm that is NaN or infinite."""
    loss_spike: Action = "abort"
    grad_norm: Action = "abort"
    no_label: Action = "abort"
    """A batch in which every label is masked."""
    learning_rate: Action = "abort"


class Guards(Frozen):
    """When to stop before the optimizer takes a step, and what to do then."""

    max_loss_ratio: float = Field(gt=1)
    """Trips when the loss exceeds this many times the median of the last ``window`` losses."""
    spike_floor: float = Field(default=1.0, ge=0)
    """A loss up to this is no spike: a row that the base finds hard is many times as hard as those known by heart, and
    anything is many times the losses of `grpo`, whose median may be 0."""
    window: int = Field(ge=2)
    max_grad_norm: float = Field(gt=0)
    """Trips when the gradient norm, before clipping, exceeds this."""
    max_learning_rate: float | None = Field(default=None, gt=0)
    """Trips when the optimizer is about to step at a higher rate."""
    actions: GuardActions = GuardActions()
    max_skips: int = Field(default=0, ge=0)
    """So many steps of a run may be dropped; one more aborts."""
    max_roll_backs: int = Field(default=0, ge=0)
    roll_back_rate: float = Field(default=0.5, gt=0, lt=1)
    """Each roll back multiplies the learning rates that follow by this."""

    @model_validator(mode="after")
    def _allowed_as_often_as_named(self) -> Self:
        named = set(self.actions.model_dump().values())
        for action, limit in (("skip", self.max_skips), ("roll_back", self.max_roll_backs)):
            if (action in named) != (limit > 0):
                raise ValueError(f"max_{action}s goes with a guard whose action is {action}: state both or neither")
        return self


class Probes(Frozen):
    """What must not be lost while training: the product's suites of layer ``general`` (questions with choices) and the
    requests to refuse among those of layer ``safety``, asked before the first step and every ``every`` steps. The run
    is ended when a share of right answers is more than ``max_drop`` below the one at the start."""

    every: int = Field(ge=1)
    items: int = Field(ge=1)
    """At most so many of each suite, drawn by the seed."""
    max_new_tokens: int = Field(default=64, ge=1)
    max_drop: float = Field(gt=0, lt=1)


class Parallel(Frozen):
    """Processes that share each batch, on one machine: as many rows a step as without them, and the same ones."""

    processes: int = Field(ge=2)
    """Each holds the whole model (DistributedDataParallel)."""


class Recipe(Frozen):
    """SFT, and after it at most one more objective; without one the model is what SFT left."""

    method: Method
    precision: Literal["auto", "bf16", "fp32"]
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "paged_adamw_8bit", "adafactor"]
    seed: int = Field(ge=0)
    deterministic: bool = True
    """Refuse operations whose result may differ from run to run, so that equal jobs leave equal bytes."""
    max_length: int = Field(ge=16)
    activation_checkpointing: bool
    lora: Lora | None
    guards: Guards
    parallel: Parallel | None = None
    probes: Probes | None = None
    sft: Sft
    preference: Preference | None = None
    kto: Kto | None = None
    reward: RewardModel | None = None
    grpo: Grpo | None = None
    distill: Distill | None = None

    @model_validator(mode="after")
    def _lora_where_it_acts(self) -> Self:
        if (self.lora is None) != (self.method == "full"):
            raise ValueError("lora is needed for the methods lora, qlora and dora, and must be null for full")
        return self

    @model_validator(mode="after")
    def _one_objective_after_sft(self) -> Self:
        named = [name for name in TUNING if getattr(self, name) is not None]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: one objective follows SFT; set the others to null")
        return self

    @model_validator(mode="after")
    def _answers_fit(self) -> Self:
        for section in (self.grpo, self.distill):
            if section is not None and section.max_tokens >= self.max_length:
                raise ValueError(
                    f"max_tokens {section.max_tokens} leaves no room for a prompt in max_length {self.max_length}: "
                    "lower it or raise max_length"
                )
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        if self.parallel is None:
            return self
        if self.tuning not in (None, "preference") or self.sft.packing or self.sft.kl > 0:
            raise ValueError(
                "parallel goes with sft (without packing and kl) and preference, of which it is shown that several "
                "processes learn what one does: set it to null"
            )
        for section in (self.sft, self.preference):
            if section is not None and section.schedule.batch_size % self.parallel.processes:
                raise ValueError(
                    f"batch_size {section.schedule.batch_size} must be a multiple of parallel.processes "
                    f"{self.parallel.processes}: they share each batch"
                )
        return self

    @model_validator(mode="after")
    def _rows_have_losses_of_their_own(self) -> Self:
        for name in ("kto", "reward", "grpo", "distill"):
            section: Section | None = getattr(self, name)
            if section is not None and section.schedule.select == "one_standard_error":
                raise ValueError(
                    f"{name}.schedule.select: one_standard_error goes with sft and preference; set minimum"
                )
        return self

    @property
    def tuning(self) -> Stage | None:
        """The objective that follows SFT, if any."""
        return next((name for name in TUNING if getattr(self, name) is not None), None)

    def section(self, stage: Stage) -> Section:
        """What the recipe says of an objective. Raises `BadInput` when it has no such section."""
        found: Section | None = getattr(self, stage)
        if found is None:
            raise BadInput(f"the recipe has no {stage} section: add one, or run another stage")
        return found

    def schedule(self, stage: Stage) -> Schedule:
        return self.section(stage).schedule

    def resolved(self, native_bf16: bool) -> "Recipe":
        """With ``auto`` made definite, so that its digest says what was computed: processors without bfloat16
        instructions emulate them ten times slower than float32."""
        definite = "bf16" if native_bf16 else "fp32"
        return self.model_copy(update={"precision": definite}) if self.precision == "auto" else self

    def for_sft(self) -> "Recipe":
        """The part that SFT depends on: a change of what follows it leaves its result valid."""
        return self.model_copy(update=dict.fromkeys(TUNING))


def load_recipe(name: str | Path) -> Recipe:
    """Read ``pipelines/recipes/NAME.yaml``, or a path to a recipe file.

    Raises `BadInput` that names the file and the keys.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise BadInput(f"no recipe {str(name)!r}: no file {path} (known recipes: {known})")
    found = read_recipe(path)
    if not isinstance(found, Recipe):
        raise BadInput(f"{path}: {'; '.join(found)}")
    return found


def read_recipe(path: Path) -> Recipe | list[str]:
    """The recipe in a file, or what is wrong with it, key by key with the remedy. Raises `BadInput` for no YAML."""
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        return [_problem(each["type"], each["loc"], each["msg"]) for each in error.errors()]


def _problem(kind: str, place: tuple[int | str, ...], message: str) -> str:
    key = ".".join(map(str, place)) or "recipe"
    if kind == "extra_forbidden":
        near = get_close_matches(str(place[-1]), _keys(Recipe), n=1)
        return f"{key}: there is no such key here; {f'did you mean {near[0]}?' if near else 'remove it'}"
    if kind == "missing":
        return f"{key}: this key is needed; add it (billing-assistant.yaml explains each)"
    return f"{key}: {message.removeprefix('Value error, ')}"


def _keys(model: type[BaseModel]) -> set[str]:
    """The keys of a section and of all sections below it."""
    below = [each for field in model.model_fields.values() for each in (field.annotation, *get_args(field.annotation))]
    inner = [_keys(each) for each in below if isinstance(each, type) and issubclass(each, BaseModel)]
    return set(model.model_fields).union(*inner)
