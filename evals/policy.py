"""The gate's policy file: what a candidate must show, against whom, by what margin. One schema for the line's own
results and for plain files of scores."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.verdicts import CriterionKind

CANARIES = "planted-canaries"
"""Stands in results and criteria where a suite's name would."""
PLAIN_METRIC = "score"
"""The one metric of plain files."""
_MARGINS = {"superiority": 0.0, "non-inferiority": 0.05}
_RESAMPLES_IN_A_TAIL = 10


class Criterion(Frozen):
    """One line of the policy, on one metric of one suite.

    ``superiority``: the interval of candidate minus ``against`` lies above ``margin`` (0 unless given) and above the
    noise floor. ``non-inferiority``: it lies above minus ``margin`` (0.05 unless given). ``floor``: the candidate's own
    interval lies above ``margin``. ``ceiling``: it lies below. ``chance`` marks a probe: it decides nothing unless the
    baseline's interval lies above chance. ``noise`` is the noise floor where one was measured before: how far re-runs
    of the baseline with other seeds lie apart.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    kind: CriterionKind
    suite: str = Field(min_length=1)
    metric: str = PLAIN_METRIC
    against: Literal["base", "champion"] | None = None
    margin: float = Field(ge=0, le=1)
    chance: float | None = Field(default=None, ge=0, lt=1)
    noise: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """What may be left out: a name made of kind and suite, the usual margin, the base as rival."""
        if not isinstance(given, dict) or given.get("kind") not in get_args(CriterionKind):
            return given
        kind, suite = given["kind"], str(given.get("suite", ""))
        usual: dict[str, Any] = {"name": re.sub(r"[^a-z0-9]+", "-", f"{kind}-{suite}".lower())[:63].strip("-")}
        if kind in _MARGINS:
            usual |= {"margin": _MARGINS[kind], "against": "base"}
        return usual | given

    @model_validator(mode="after")
    def _has_its_rival(self) -> "Criterion":
        if self.compares == (self.against is None):
            raise ValueError(f"{self.name}: a floor or a ceiling has no `against`, every other kind needs one")
        if not self.compares and (self.chance is not None or self.noise is not None):
            raise ValueError(f"{self.name}: `chance` and `noise` are of a baseline, which a {self.kind} does not have")
        return self

    @model_validator(mode="after")
    def _fears_recital(self) -> "Criterion":
        if self.suite == CANARIES and self.kind != "ceiling":
            raise ValueError(f"{self.name}: on {CANARIES} less is better: its kind is ceiling")
        return self

    @property
    def compares(self) -> bool:
        return self.kind in _MARGINS


class NoiseRuns(Frozen):
    """The noise floor is to be measured: every baseline is asked again with each of these seeds, sampled at this
    temperature."""

    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(min_length=1)
    temperature: float = Field(gt=0, le=2)

    @model_validator(mode="after")
    def _differ(self) -> "NoiseRuns":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("the same seed twice tells nothing new: give each once")
        return self


class GatePolicy(Frozen):
    """All criteria must pass, so that no correction for their number is due (Berger 1982: intersection-union test). Any
    one that fails holds the candidate back, so that there it is: they are one family, by Holm.

    Criteria against the champion apply when there is one. With ``noise`` there is no verdict without a noise floor that
    was measured for it.
    """

    name: str = Field(min_length=1)
    confidence: float = Field(default=0.95, ge=0.8, lt=1)
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000)
    seed: int = Field(default=0, ge=0)
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    noise: NoiseRuns | None = Field(default=None, exclude_if=lambda noise: noise is None)

    @property
    def baselines(self) -> frozenset[tuple[str, str]]:
        """(suite, subject) of all that candidates are compared with."""
        return frozenset((each.suite, each.against) for each in self.criteria if each.against is not None)

    @property
    def tail(self) -> float:
        """The error probability of one side of an interval: of a false pass, and of a false hold over all criteria."""
        return (1 - self.confidence) / 2

    @model_validator(mode="after")
    def _decides(self) -> "GatePolicy":
        names = [criterion.name for criterion in self.criteria]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two criteria have the name {twice[0]}: give each its own `name`")
        if all(criterion.against == "champion" for criterion in self.criteria):
            raise ValueError("without a champion this policy would ask nothing")
        if self.noise and not self.baselines:
            raise ValueError("noise: no criterion compares with a baseline: take it out")
        if self.resamples * self.tail < _RESAMPLES_IN_A_TAIL:
            least = -(-_RESAMPLES_IN_A_TAIL // self.tail)
            raise ValueError(f"a confidence of {self.confidence} needs `resamples` of {least:.0f} or more")
        return self


def load_policy(path: Path) -> GatePolicy:
    """Raises `BadInput` with the file and what to mend. Without a ``name`` the policy has the file's."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        return GatePolicy.model_validate({"name": path.stem} | document if isinstance(document, dict) else document)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; give a policy file (YAML)") from error
    except ValidationError as error:
        raise BadInput(f"{path}: {_told(error)}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _told(error: ValidationError) -> str:
    """All faults in one line: place, and what is wrong there."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'the policy'}: {fault['msg'].removeprefix('Value error, ')}"
        for fault in error.errors(include_url=False)
    )
