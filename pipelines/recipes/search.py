"""A search file: which values of a recipe to try, how many times, and what that may cost."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from pipelines.recipes.edit import Scalar, with_values
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import load_recipe

FOLDER = ROOT / "pipelines" / "searches"
MEASURE = ("seed", "max_length", "sft.schedule.eval_rows", "sft.assistant_only_loss", "sft.label_smoothing")
"""Keys that change which validation rows are asked: trials that differ in one of them cannot be compared."""


class Between(Frozen):
    """A number from ``low`` to ``high``, both included; whole when both are whole. ``log``: drawn evenly by order of
    magnitude. ``step``: only ``low``, ``low + step``, ..."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _a_range(self) -> "Between":
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        if self.whole and self.step is not None and not isinstance(self.step, int):
            raise ValueError("step must be whole where low and high are")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Scalar, ...]:
        return self.low, self.high


class OneOf(Frozen):
    """One of these values, between which no order is assumed."""

    choices: tuple[Scalar, ...] = Field(min_length=2)

    def ends(self) -> tuple[Scalar, ...]:
        return self.choices


class MedianPruner(Frozen):
    """Ends a trial whose best validation loss so far is above the median of the earlier trials at the same step
    (Golovin et al., 2017, Google Vizier, section 3.1). ``startup_trials`` are never ended early, nor is any trial
    before step ``startup_steps``."""

    startup_trials: int = Field(ge=1)
    startup_steps: int = Field(ge=0)


class Search(Frozen):
    """``space`` maps dotted keys of the product's recipe to the values to try; the measure is the validation loss of
    SFT. No trial begins, and the one under way ends, when all have taken ``device_hours``."""

    space: dict[str, Between | OneOf] = Field(min_length=1)
    sampler: Literal["tpe", "random"]
    seed: int = Field(ge=0)
    trials: int = Field(ge=1)
    pruner: MedianPruner | None
    device_hours: float = Field(gt=0)


def load_search(name: str | Path) -> Search:
    """Read ``pipelines/searches/NAME.yaml``, or a path to a search file. Raises `BadInput` with file and key."""
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise BadInput(f"no search {str(name)!r}: no file {path} (known searches: {known})")
    try:
        return Search.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'search'}: {e['msg']}" for e in error.errors())
        raise BadInput(f"{path}: {found}") from error


def check_space(search: Search, recipe: Path, scratch: Path) -> None:
    """Raises `BadInput` for a key that SFT does not depend on or that moves the measure, and for an end of a range, or
    a choice, that the recipe does not take by itself. ``scratch`` is a folder for a file."""
    text, shipped = recipe.read_text(), load_recipe(recipe).for_sft()
    for key, values in search.space.items():
        if key in MEASURE:
            raise BadInput(
                f"search, space: {key} changes what is measured, so that trials do not compare: leave it out"
            )
        acts = False
        for value in values.ends():
            file = scratch / "space.yaml"
            file.write_text(with_values(text, {key: value}))
            try:
                acts = load_recipe(file).for_sft() != shipped or acts
            except BadInput as error:
                raise BadInput(f"search, space: {key} cannot be {value!r} in {recipe.name} ({error})") from error
            finally:
                file.unlink()
        if not acts:
            raise BadInput(f"search, space: {key} does not act on SFT, whose validation loss is measured: leave it out")
