"""The data policy of a product: for each purpose what it allows, what it blocks, and what it keeps a share of."""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from data_contracts.contract import NO_LICENCE, Terms, spdx
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.ledger import ConsentBasis, Origin, Purpose, Tier
from data_contracts.ratings import PreferenceRule

Share = Annotated[float, Field(ge=0, le=1)]


class Waiver(Frozen):
    """Why and by whom the human floor is set aside. Recorded in the mixture's manifest and on the model card."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=10)


class PurposeRule(Frozen):
    """``human_floor`` is the least share of rows that people wrote (synthetic depth 0). ``regions``: where data may
    come from; none named, anywhere. A weight is the share of rows that the mixture keeps, 1 where none is named.
    ``unclear_vendor_terms`` lets rows pass of a model whose terms leave open whether they may be learned from."""

    licences: tuple[str, ...] = Field(min_length=1)
    consent: tuple[ConsentBasis, ...] = Field(min_length=1)
    regions: tuple[str, ...] = ()
    licence_weights: dict[str, Share] = {}
    region_weights: dict[str, Share] = {}
    unclear_vendor_terms: bool = False
    human_floor: float = Field(ge=0, le=1)
    human_floor_waiver: Waiver | None = None
    max_synthetic_depth: int = Field(ge=0)

    @field_validator("licences")
    @classmethod
    def _spdx(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for licence in value:
            if licence != NO_LICENCE and spdx(licence) != licence:
                raise ValueError(f"{licence!r} is not an SPDX licence identifier, e.g. CC-BY-4.0")
        return value

    @field_validator("consent")
    @classmethod
    def _some_basis(cls, value: tuple[ConsentBasis, ...]) -> tuple[ConsentBasis, ...]:
        if "none" in value:
            raise ValueError("'none' is the absence of a basis and cannot be allowed")
        return value

    @model_validator(mode="after")
    def _weights_are_of_what_is_allowed(self) -> "PurposeRule":
        if unknown := set(self.licence_weights) - set(self.licences):
            raise ValueError(f"licence_weights: not among the licences allowed: {', '.join(sorted(unknown))}")
        if self.regions and (unknown := set(self.region_weights) - set(self.regions)):
            raise ValueError(f"region_weights: not among the regions allowed: {', '.join(sorted(unknown))}")
        return self


class PiiRule(Frozen):
    """``labelled`` is a file of text whose personal data is marked (a path that starts at the repository); of each kind
    in ``min_recall`` the line must find at least that share there, or it stops."""

    labelled: str
    min_recall: dict[str, Share] = Field(min_length=1)


class DataPolicy(Frozen):
    """``tier_weights`` is the share of a tier's rows that the mixture keeps; ``max_toxicity`` the highest score, from 0
    to 1, of an answer to learn (no filter where it is left out); ``preferences`` what is demanded of the raters of
    preference pairs; ``pii`` what the detector of personal data must be seen to find."""

    name: str
    purposes: dict[Purpose, PurposeRule] = Field(min_length=1)
    tier_weights: dict[Tier, float] = {"gold": 1.0, "silver": 1.0, "bronze": 1.0}
    max_toxicity: float | None = Field(default=None, gt=0, le=1)
    preferences: PreferenceRule | None = None
    pii: PiiRule | None = None

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
    """What a policy makes of a row. ``code`` is a short word for counts, ``reason`` a sentence for people, ``share``
    how much the mixture keeps of such rows."""

    verdict: Literal["allow", "block", "weight"]
    code: str = ""
    reason: str = ""
    share: float = 1.0


def judge(policy: DataPolicy, purpose: Purpose, origin: Origin, terms: Terms) -> Decision:
    """Whether a row may be used for a purpose, by where it comes from and the terms of its contract."""
    rule = policy.rule(purpose)
    faults = [*_faults(rule, purpose, origin), *_source_faults(rule, terms)]
    if faults:
        return Decision(verdict="block", code=faults[0][0], reason="; ".join(reason for _, reason in faults), share=0.0)
    weights = {
        f"tier {origin.tier}": policy.tier_weights[origin.tier],
        f"licence {origin.licence}": rule.licence_weights.get(origin.licence, 1.0),
        f"region {terms.region}": rule.region_weights.get(terms.region or "", 1.0),
    }
    share = round(prod(weights.values()), 6)
    if share == 1:
        return Decision(verdict="allow")
    told = ", ".join(f"{what} has weight {weight:g}" for what, weight in weights.items() if weight < 1)
    return Decision(verdict="weight", code="weight", reason=told, share=share)


def _faults(rule: PurposeRule, purpose: Purpose, origin: Origin) -> Iterator[tuple[str, str]]:
    if origin.licence not in rule.licences:
        yield "licence", f"licence {origin.licence} is not allowed for {purpose}; allowed: {_list(rule.licences)}"
    if origin.consent not in rule.consent:
        yield (
            "consent",
            f"consent basis {origin.consent} is not allowed for {purpose}; needs {_list(rule.consent)}",
        )
    if purpose not in origin.purposes:
        remedy = (
            ""
            if set(origin.purposes) - {"inference"}
            else ": it needs a training purpose before it may be learned from"
        )
        yield "purpose", f"the data contract does not allow {purpose}; it allows {_list(origin.purposes)}{remedy}"
    if origin.synthetic_depth > rule.max_synthetic_depth:
        yield (
            "synthetic-depth",
            f"synthetic depth {origin.synthetic_depth} exceeds the policy's {rule.max_synthetic_depth}",
        )


def _source_faults(rule: PurposeRule, terms: Terms) -> Iterator[tuple[str, str]]:
    """No policy can set aside that a regulated source was not signed off, or that a vendor forbids training."""
    if terms.regulated is not None and terms.signOff is None:
        yield (
            "regulated",
            f"is regulated ({terms.regulated}) and nobody signed it off: put the reference of its impact assessment "
            "(DPIA) into the data contract's signOff",
        )
    made = terms.generatedBy
    if made is not None and made.training == "forbidden":
        yield "vendor-terms", f"was made by {made.model}, whose terms forbid to train on it ({made.terms})"
    if made is not None and made.training == "unclear" and not rule.unclear_vendor_terms:
        yield (
            "vendor-terms",
            f"was made by {made.model}, whose terms leave open whether it may be trained on ({made.terms})",
        )
    if rule.regions and terms.region not in rule.regions:
        yield "region", f"comes from {terms.region or 'a region that is not stated'}; allowed: {_list(rule.regions)}"


def check_human_floor(rule: PurposeRule, rows: int, synthetic: int) -> None:
    """Raises `Refused` when people wrote too few of the rows and nobody answers for that in a waiver."""
    share = (rows - synthetic) / rows if rows else 0.0
    if share < rule.human_floor and rule.human_floor_waiver is None:
        raise Refused(
            f"only {share:.0%} of the {rows} rows were written by people, the policy's human_floor is "
            f"{rule.human_floor:.0%}: add such rows, or record a human_floor_waiver (by, reason) in the policy"
        )


def check_teacher(policy: DataPolicy, purpose: Purpose, name: str, licence: str) -> None:
    """A model that another one learns from, token by token, is a source like any other. Raises `Refused` when the
    policy does not allow its licence."""
    allowed = policy.rule(purpose).licences
    stated = spdx(licence) or NO_LICENCE
    if stated not in allowed:
        raise Refused(
            f"the teacher {name} is under {licence}, which data policy {policy.name} does not allow for {purpose} "
            f"(allowed: {_list(allowed)}): name another teacher, or state its licence in its model card"
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


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)
