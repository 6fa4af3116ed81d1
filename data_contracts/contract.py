"""Data contracts in the Open Data Contract Standard (v3): the part that Assay reads, and the check of a row.

Fields of the standard that Assay does not read are let through; a field that the standard does not have is an error,
so that a misspelt rule cannot pass for a rule. What the standard has no field for (licence, consent, purposes, tier,
...) stands in ``customProperties``.
"""

import re
from datetime import date
from pathlib import Path
from typing import Any, Literal

import yaml
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import Field, ValidationError, field_validator, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.ledger import ConsentBasis, Purpose, Tier

NO_LICENCE = "NOASSERTION"
"""SPDX's word for a licence that nobody stated; only a policy that names it allows it."""

_UNREAD = {
    "contract": "name tenant domain dataProduct description tags servers support price roles slaProperties "
    "slaDefaultElement authoritativeDefinitions contractCreatedTs",
    "schema": "id physicalName physicalType description businessName authoritativeDefinitions tags "
    "dataGranularityDescription customProperties relationships",
    "property": "id physicalName physicalType description businessName authoritativeDefinitions tags classification "
    "encryptedName criticalDataElement examples primaryKeyPosition partitioned partitionKeyPosition customProperties "
    "transformSourceObjects transformLogic transformDescription relationships items properties",
    "rule": "id name description dimension severity businessImpact method schedule scheduler tags unit "
    "authoritativeDefinitions customProperties",
    "team": "id name description tags customProperties authoritativeDefinitions",
    "member": "id name description dateIn dateOut replacedByUsername tags customProperties authoritativeDefinitions",
}


def _without(values: Any, part: str) -> Any:
    unread = _UNREAD[part].split()
    return {k: v for k, v in values.items() if k not in unread} if isinstance(values, dict) else values


class Rule(Frozen):
    """A quality rule on a property. ``invalidValues`` with ``validValues`` or ``pattern`` is checked in every row;
    ``text`` rules are for people."""

    type: Literal["library", "text"] = "library"
    metric: Literal["invalidValues"] | None = None
    arguments: dict[str, Any] = {}
    mustBe: Literal[0] = 0

    @model_validator(mode="before")
    @classmethod
    def _standard(cls, values: Any) -> Any:
        return _without(values, "rule")

    @model_validator(mode="after")
    def _checkable(self) -> "Rule":
        if self.type == "library" and self.metric is None:
            raise ValueError("a library rule needs the metric invalidValues, the one that is checked here")
        if extra := set(self.arguments) - {"validValues", "pattern"}:
            raise ValueError(f"arguments that are not checked here: {', '.join(sorted(extra))}")
        if self.metric == "invalidValues" and not self.arguments:
            raise ValueError("invalidValues needs arguments: validValues (a list) or pattern (a regular expression)")
        return self


class TypeOptions(Frozen):
    minLength: int | None = None
    maxLength: int | None = None
    pattern: str | None = None
    minimum: float | None = None
    maximum: float | None = None


class Property(Frozen):
    name: str
    logicalType: Literal["string", "integer", "number", "boolean", "date", "timestamp", "array", "object"] = "string"
    logicalTypeOptions: TypeOptions = TypeOptions()
    required: bool = False
    unique: bool = False
    primaryKey: bool = False
    quality: tuple[Rule, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _standard(cls, values: Any) -> Any:
        return _without(values, "property")


class Table(Frozen):
    name: str
    logicalType: Literal["object"] = "object"
    properties: tuple[Property, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _standard(cls, values: Any) -> Any:
        return _without(values, "schema")


class Member(Frozen):
    username: str
    role: str = ""

    @model_validator(mode="before")
    @classmethod
    def _standard(cls, values: Any) -> Any:
        return _without(values, "member")


class Team(Frozen):
    members: tuple[Member, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _standard(cls, values: Any) -> Any:
        return _without(values, "team")


class GeneratedBy(Frozen):
    """The model that made the rows, and whether its vendor's terms let a model be trained on them."""

    model: str = Field(min_length=1)
    terms: str = Field(min_length=1)
    training: Literal["allowed", "unclear", "forbidden"]


def _absent(value: object) -> bool:
    """Terms that a contract does not state are no part of its digest: a new kind of term renames no old contract."""
    return value is None


class Terms(Frozen):
    """Assay's ``customProperties``. ``licenceField`` and ``consentField`` name a column that states it per row;
    ``subjectKey`` the column of the person a row is about; ``groupKey`` one whose equal values stay in one split;
    ``labelKey`` one whose values are the classes that a mixture balances; ``syntheticDepthField`` a column of rows' own
    depths, none of which counts for less than ``syntheticDepth``; ``dateField`` one of when a row was made, so that of
    copies the oldest stays; ``retainUntilField`` one of rows' own last days, the earlier of which and ``retainUntil``
    counts.

    ``region`` (ISO 3166-1, or ``EU``) is where the data was collected. ``regulated`` names the regime that the data
    falls under (``GDPR Art. 9``) and ``signOff`` its impact assessment (DPIA), without which no policy lets it pass.
    ``scrub`` is what stands for personal data: a made-up value (``replace``, also where nothing is stated), its kind,
    stars, or a hash keyed by the row's subject.
    """

    licence: str | None = None
    licenceField: str | None = None
    consent: ConsentBasis | None = None
    consentField: str | None = None
    purposes: tuple[Purpose, ...] = Field(min_length=1)
    subjectKey: str | None = None
    groupKey: str | None = None
    labelKey: str | None = Field(default=None, exclude_if=_absent)
    tier: Tier
    syntheticDepth: int = Field(ge=0)
    syntheticDepthField: str | None = Field(default=None, exclude_if=_absent)
    retainUntil: date | None = None
    retainUntilField: str | None = Field(default=None, exclude_if=_absent)
    dateField: str | None = Field(default=None, exclude_if=_absent)
    scrub: Literal["replace", "redact", "mask", "hash"] | None = Field(default=None, exclude_if=_absent)
    region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$", exclude_if=_absent)
    regulated: str | None = Field(default=None, min_length=1, exclude_if=_absent)
    signOff: str | None = Field(default=None, min_length=1, exclude_if=_absent)
    generatedBy: GeneratedBy | None = Field(default=None, exclude_if=_absent)

    @field_validator("licence")
    @classmethod
    def _spdx(cls, value: str | None) -> str | None:
        if value is not None and value != NO_LICENCE and spdx(value) is None:
            raise ValueError(f"{value!r} is not an SPDX licence expression, e.g. CC-BY-4.0, nor {NO_LICENCE}")
        return value

    @model_validator(mode="after")
    def _stated(self) -> "Terms":
        if (self.licence is None) == (self.licenceField is None):
            raise ValueError("state either licence or licenceField")
        if (self.consent is None) == (self.consentField is None):
            raise ValueError("state either consent or consentField")
        if self.signOff is not None and self.regulated is None:
            raise ValueError("signOff signs off a regulated source: state what it is regulated by")
        if self.generatedBy is not None and self.syntheticDepth == 0:
            raise ValueError("generatedBy: rows that a model made have a syntheticDepth of at least 1")
        return self

    def columns(self) -> list[str]:
        terms = (self.licenceField, self.consentField, self.subjectKey)
        named = (*terms, self.groupKey, self.labelKey, self.syntheticDepthField, self.retainUntilField, self.dateField)
        return [column for column in named if column is not None]


class DataContract(Frozen):
    """A contract as read. Its digest covers what is read, so that prose may change without making new data."""

    apiVersion: str = Field(pattern=r"^v3\.\d+\.\d+$")
    kind: Literal["DataContract"]
    id: str
    version: str
    status: Literal["proposed", "draft", "active", "deprecated", "retired"]
    team: Team
    table: Table
    terms: Terms

    @model_validator(mode="after")
    def _columns_exist(self) -> "DataContract":
        known = {each.name for each in self.table.properties}
        for column in self.terms.columns():
            if column not in known:
                raise ValueError(f"customProperties name the column {column!r}, which the schema does not have")
        depth = next((each for each in self.table.properties if each.name == self.terms.syntheticDepthField), None)
        if depth and not (depth.required and depth.logicalType == "integer"):
            raise ValueError(f"syntheticDepthField: the column {depth.name!r} must be a required integer")
        types = {each.name: each.logicalType for each in self.table.properties}
        if self.terms.retainUntilField and types[self.terms.retainUntilField] != "date":
            raise ValueError(f"retainUntilField: the column {self.terms.retainUntilField!r} must be a date")
        if self.terms.dateField and types[self.terms.dateField] not in ("date", "timestamp"):
            raise ValueError(f"dateField: the column {self.terms.dateField!r} must be a date or a timestamp")
        return self

    def owner(self) -> str:
        return next((m.username for m in self.team.members if m.role == "owner"), self.team.members[0].username)


def spdx(text: str) -> str | None:
    """The canonical SPDX expression, or ``None`` when it is not one."""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return None


def load_contract(path: Path) -> DataContract:
    """Read a contract. Raises `BadInput` that names file, field and fault."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"data contract {path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise BadInput(f"data contract {path} is not a YAML mapping: see data_contracts/contracts for an example")
    values = _without(raw, "contract")
    tables, custom = values.pop("schema", None), values.pop("customProperties", [])
    if not isinstance(tables, list) or len(tables) != 1:
        raise BadInput(f"data contract {path}: schema must list exactly one object, the rows of a source")
    try:
        values["terms"] = {each["property"]: each["value"] for each in custom}
    except (TypeError, KeyError) as error:
        raise BadInput(f"data contract {path}: customProperties must be a list of property and value") from error
    try:
        contract = DataContract.model_validate(values | {"table": tables[0]})
    except ValidationError as error:
        faults = (f"{_place(each['loc'])}: {each['msg']}" for each in error.errors())
        raise BadInput(f"data contract {path}: {'; '.join(faults)}") from error
    _compile_patterns(contract, path)
    return contract


def _place(steps: tuple[int | str, ...]) -> str:
    """Where a fault lies, in the words of the file."""
    first = {"table": ["schema", "0"], "terms": ["customProperties"]}
    return ".".join([*first.get(str(steps[0]), [str(steps[0])]), *map(str, steps[1:])]) if steps else "contract"


def _compile_patterns(contract: DataContract, path: Path) -> None:
    for column in contract.table.properties:
        for pattern in (column.logicalTypeOptions.pattern, *(rule.arguments.get("pattern") for rule in column.quality)):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise BadInput(f"data contract {path}: {column.name}: pattern {pattern!r}: {error}") from error
