"""The gate's policy file: what a candidate must show, against whom, by what margin."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.verdicts import CriterionKind

CANARIES = "planted-canaries"
"""Stands in results and criteria where a suite's name would."""


class Criterion(Frozen):
    """One line of the policy, on one metric of one suite.

    ``superiority``: the interval of candidate minus ``against`` lies above ``margin``. ``non-inferiority``: it lies
    above minus ``margin``. ``floor``: the candidate's own interval lies above ``margin``. ``ceiling``: it lies below.
    ``chance`` marks a probe: it decides nothing unless the baseline's interval lies above chance.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    kind: CriterionKind
    suite: str
    metric: str
    against: Literal["base", "champion"] | None = None
    margin: float = Field(ge=0, le=1)
    chance: float | None = Field(default=None, ge=0, lt=1)

    @model_validator(mode="after")
    def _has_its_rival(self) -> "Criterion":
        if (self.kind in ("floor", "ceiling")) != (self.against is None):
            raise ValueError(f"{self.name}: a floor or a ceiling has no `against`, every other kind needs one")
        return self

    @model_validator(mode="after")
    def _fears_recital(self) -> "Criterion":
        if self.suite == CANARIES and self.kind != "ceiling":
            raise ValueError(f"{self.name}: on {CANARIES} less is better: its kind is ceiling")
        return self


class GatePolicy(Frozen):
    """All criteria must pass, so that no correction for their number is due (Berger 1982: intersection-union test).

    Criteria against the champion apply when there is one.
    """

    name: str
    confidence: float = Field(ge=0.8, lt=1)
    resamples: int = Field(ge=1000)
    seed: int
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _decides(self) -> "GatePolicy":
        names = [criterion.name for criterion in self.criteria]
        if len(set(names)) != len(names):
            raise ValueError("two criteria have the same name")
        if all(criterion.against == "champion" for criterion in self.criteria):
            raise ValueError("without a champion this policy would ask nothing")
        return self


def load_policy(path: Path) -> GatePolicy:
    try:
        return GatePolicy.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error
