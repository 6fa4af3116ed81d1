"""What a hyperparameter search tried and found: numbers and names, no row and no weights."""

from typing import Literal

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen


class Trial(Frozen):
    """One training run. ``curve`` holds (step, validation loss); ``recipe`` names the resolved recipe, and
    ``checkpoint`` what a trial that ran to its end left in the store. ``seconds`` is its wall clock, the one thing
    here that another machine would not repeat; the budget counts it.

    ``interrupted``: the search died meanwhile; the next trial goes on from its checkpoint.
    """

    number: int
    parameters: dict[str, bool | int | float | str]
    state: Literal["complete", "pruned", "failed", "interrupted"]
    validation_loss: float | None
    curve: tuple[tuple[int, float], ...]
    seconds: float
    reason: str
    recipe: Digest | None
    checkpoint: Digest | None


class SearchManifest(Frozen):
    """``best`` is the number of the complete trial with the least validation loss, the earliest of equals, and
    ``best_recipe`` names the product's recipe file with that trial's values. ``importance`` maps keys to shares of the
    variance between complete trials that they account for, which sum to 1; empty where too few tell."""

    kind: Literal["search"] = "search"
    product: str
    base: Digest
    dataset: Digest
    search: Digest
    recipe: Digest
    trials: tuple[Trial, ...]
    best: int
    best_recipe: Digest
    importance: dict[str, float]
    ended: Literal["trials", "budget"]
    device_hours: float
    action_key: Digest

    @property
    def winner(self) -> Trial:
        return next(trial for trial in self.trials if trial.number == self.best)
