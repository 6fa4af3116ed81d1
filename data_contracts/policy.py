"""The data policy of a product: which licences, consent bases and shares of synthetic rows a purpose allows."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from data_contracts.contract import spdx
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.ledger import ConsentBasis, LedgerEntry, Purpose, Tier


class Waiver(Frozen):
    """Why and by whom the human floor is set aside. Recorded in the mixture's manifest and on the model card."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=10)


class PurposeRule(Frozen):
    """``human_floor`` is the least share of rows that people wrote (synthetic depth 0)."""

    licences: tuple[str, ...] = Field(min_length=1)
    consent: tuple[ConsentBasis, ...] = Field(min_length=1)
    human_floor: float = Field(ge=0, le=1)
    human_floor_waiver: Waiver | None = None
    max_synthetic_depth: int = Field(ge=0)

    @field_validator("licences")
    @classmethod
    def _spdx(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for licence in value:
            if spdx(licence) != licence:
                raise ValueError(f"{licence!r} is not an SPDX licence identifier, e.g. CC-BY-4.0")
        return value

    @field_validator("consent")
    @classmethod
    def _some_basis(cls, value: tuple[ConsentBasis, ...]) -> tuple[ConsentBasis, ...]:
        if "none" in value:
            raise ValueError("'none' is the absence of a basis and cannot be allowed")
        return value


class DataPolicy(Frozen):
    """``tier_weights`` is the share of a tier's rows that the mixture keeps; ``max_toxicity`` the highest score, from 0
    to 1, of an answer to learn (no filter where it is left out)."""

    name: str
    purposes: dict[Purpose, PurposeRule] = Field(min_length=1)
    tier_weights: dict[Tier, float] = {"gold": 1.0, "silver": 1.0, "bronze": 1.0}
    max_toxicity: float | None = Field(default=None, gt=0, le=1)

    @field_validator("tier_weights")
    @classmethod
    def _shares(cls, value: dict[Tier, float]) -> dict[Tier, float]:
        if set(value) != {"gold", "silver", "bronze"} or not all(0 <= weight <= 1 for weight in value.values()):
            raise ValueError("needs gold, silver and bronze, each from 0 to 1")
        return value

    def rule(self, purpose: Purpose) -> PurposeRule:
        """The rule of a purpose; a purpose that the policy does not name is refused."""
        if purpose not in self.purposes:
            raise Refused(
                f"data policy {self.name} does not allow the purpose {purpose!r}: add it or change the product"
            )
        return self.purposes[purpose]


class Decision(Frozen):
    """``code`` is a short word for counts, ``reason`` a sentence for people."""

    verdict: Literal["allow", "block"]
    code: str = ""
    reason: str = ""


def judge(rule: PurposeRule, purpose: Purpose, entry: LedgerEntry) -> Decision:
    """Whether a row may be used for a purpose, by its ledger entry alone."""
    if entry.licence not in rule.licences:
        return _block(
            "licence", f"licence {entry.licence} is not allowed for {purpose}; allowed: {_list(rule.licences)}"
        )
    if entry.consent not in rule.consent:
        return _block(
            "consent", f"consent basis {entry.consent} is not allowed for {purpose}; needs {_list(rule.consent)}"
        )
    if purpose not in entry.purposes:
        return _block("purpose", f"the data contract does not allow {purpose}; it allows {_list(entry.purposes)}")
    if entry.synthetic_depth > rule.max_synthetic_depth:
        return _block(
            "synthetic-depth",
            f"synthetic depth {entry.synthetic_depth} exceeds the policy's {rule.max_synthetic_depth}",
        )
    return Decision(verdict="allow")


def check_human_floor(rule: PurposeRule, rows: int, synthetic: int) -> None:
    """Raises `Refused` when people wrote too few of the rows and nobody answers for that in a waiver."""
    share = (rows - synthetic) / rows if rows else 0.0
    if share < rule.human_floor and rule.human_floor_waiver is None:
        raise Refused(
            f"only {share:.0%} of the {rows} rows were written by people, the policy's human_floor is "
            f"{rule.human_floor:.0%}: add such rows, or record a human_floor_waiver (by, reason) in the policy"
        )


def load_policy(path: Path) -> DataPolicy:
    """Read a data policy. Raises `BadInput` that names file, field and fault."""
    try:
        return DataPolicy.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"data policy {path} cannot be read: {error}") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, each['loc'])) or 'policy'}: {each['msg']}" for each in error.errors())
        raise BadInput(f"data policy {path}: {'; '.join(faults)}") from error


def _block(code: str, reason: str) -> Decision:
    return Decision(verdict="block", code=code, reason=reason)


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)
