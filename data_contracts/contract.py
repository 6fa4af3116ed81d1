"""Data contracts in the Open Data Contract Standard (v3): the part that Assay reads.

A contract must keep the standard's own schema, in which a field that the standard does not have is an error, so that a
misspelt rule cannot pass for a rule. Fields that only tell something are let through; a rule that Assay cannot check
is an error. What the standard has no field for (licence, consent, purposes, tier, ...) stands in ``customProperties``.
"""

import re
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.ledger import ConsentBasis, Purpose, Tier
from data_contracts.standard import faults, place_in, read_yaml

F = TypeVar("F", bound=Frozen)

LogicalType = Literal[
    "string", "integer", "number", "boolean", "date", "time", "timestamp", "array", "vector", "object", "map"
]
NO_LICENCE = "NOASSERTION"
"""SPDX's word for a licence that nobody stated; only a policy that names it allows it."""

_TOLD_OF_A_RULE = (
    *("id", "name", "description", "dimension", "severity", "businessImpact", "method", "schedule", "scheduler"),
    *("tags", "unit", "authoritativeDefinitions", "customProperties"),
)
"""What a quality rule says to people. Whatever else stands in it says what to check."""


def _absent(value: object) -> bool:
    """What a contract does not state is no part of its digest: a new kind of term renames no old contract."""
    return value is None or value == ()


class Rule(Frozen):
    """A quality rule on a property. ``invalidValues`` with ``validValues`` or ``pattern`` is checked in every row;
    ``text`` rules are for people."""

    type: Literal["library", "text"] = "library"
    metric: Literal["invalidValues"] | None = None
    arguments: dict[str, Any] = {}
    mustBe: Literal[0] = 0

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
    logicalType: LogicalType | None = None
    """Where none is stated, any value will do."""
    logicalTypeOptions: TypeOptions = TypeOptions()
    required: bool = False
    unique: bool = False
    primaryKey: bool = False
    quality: tuple[Rule, ...] = ()
    enum: tuple[JsonValue, ...] = Field(default=(), exclude_if=_absent)


class Table(Frozen):
    name: str
    logicalType: Literal["object"] = "object"
    properties: tuple[Property, ...] = Field(min_length=1)


class Member(Frozen):
    username: str
    role: str = ""


class Team(Frozen):
    members: tuple[Member, ...] = Field(min_length=1)


class GeneratedBy(Frozen):
    """The model that made the rows, and whether its vendor's terms let a model be trained on them."""

    model: str = Field(min_length=1)
    terms: str = Field(min_length=1)
    training: Literal["allowed", "unclear", "forbidden"]


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

    apiVersion: str
    kind: Literal["DataContract"]
    id: str
    version: str
    status: str | None = None
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
        owners = (each.username for each in self.team.members if each.role.casefold() == "owner")
        return next(owners, self.team.members[0].username)


def spdx(text: str) -> str | None:
    """The canonical SPDX expression, or ``None`` when it is not one."""
    try:
        return str(canonicalize_license_expression(text))
    except InvalidLicenseExpression:
        return None


def load_contract(path: Path) -> DataContract:
    """Read a contract. Raises `BadInput` that names file, field and fault."""
    document = _document(path)
    values = _picked(DataContract, document) | {
        "team": _team(document.get("team", {})),
        "table": _table(document, path),
        # Of a vendor: what another system reads.
        "terms": {
            each["property"]: each["value"] for each in document.get("customProperties", []) if "vendor" not in each
        },
    }
    contract = _made(DataContract, values, document, path)
    _compile_patterns(contract.table, path)
    return contract


def load_table(path: Path) -> Table:
    """What a contract says of the form of rows, whoever wrote it: Assay's terms need not stand in it. Raises
    `BadInput`."""
    document = _document(path)
    table = _made(Table, _table(document, path), document, path, "table")
    _compile_patterns(table, path)
    return table


def _document(path: Path) -> dict[str, Any]:
    """The YAML of a file, if it keeps the standard."""
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"data contract {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"data contract {path} is not a YAML mapping: see data_contracts/contracts for an example")
    if str(document.get("apiVersion", "")).startswith("v2."):
        raise BadInput(f"data contract {path}: apiVersion {document['apiVersion']} is too old; write it for v3")
    if found := faults(document):
        raise BadInput(f"data contract {path} does not keep the standard: {'; '.join(found)}")
    return document


def _picked(model: type[Frozen], values: dict[str, Any]) -> dict[str, Any]:
    """The fields that are read; the standard has more."""
    return {key: value for key, value in values.items() if key in model.model_fields}


def _team(team: Any) -> dict[str, Any]:
    """The team as of version 3.1; before, it was the list of its members."""
    members = team if isinstance(team, list) else team.get("members", [])
    return {"members": [_picked(Member, member) for member in members]}


def _table(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """The one object of the contract, as far as it is read."""
    tables = document.get("schema", [])
    if len(tables) != 1:
        raise BadInput(f"data contract {path}: schema must list exactly one object, the rows of a source")
    rules = tables[0].get("quality", [])
    if any(rule.get("type") != "text" for rule in rules):
        raise BadInput(f"data contract {path}: schema.0.quality: only rules on a property are checked here")
    return _picked(Table, tables[0]) | {"properties": [_property(each) for each in tables[0].get("properties", [])]}


def _property(values: dict[str, Any]) -> dict[str, Any]:
    rules = [{k: v for k, v in rule.items() if k not in _TOLD_OF_A_RULE} for rule in values.get("quality", [])]
    return _picked(Property, values) | {"quality": rules, "enum": [each["value"] for each in values.get("enum", [])]}


def _made(model: type[F], values: dict[str, Any], document: dict[str, Any], path: Path, *place: str) -> F:
    """``place`` is where ``values`` stand in a contract."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        told = []
        for each in error.errors():
            where = (*place, *each["loc"])
            unknown = "is no term of Assay's" if "terms" in where[:1] else "cannot be checked here; take it out"
            fault = unknown if each["type"] == "extra_forbidden" else each["msg"]
            told.append(f"{_place(document, where)}: {fault}")
        raise BadInput(f"data contract {path}: {'; '.join(told)}") from error


def _place(document: dict[str, Any], steps: tuple[int | str, ...]) -> str:
    """Where a fault lies, in the words of the file."""
    first: dict[int | str, tuple[int | str, ...]] = {"table": ("schema", 0), "terms": ("customProperties",)}
    return place_in(document, (*first.get(steps[0], steps[:1]), *steps[1:]) if steps else ())


def _compile_patterns(table: Table, path: Path) -> None:
    for column in table.properties:
        for pattern in (column.logicalTypeOptions.pattern, *(rule.arguments.get("pattern") for rule in column.quality)):
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise BadInput(f"data contract {path}: {column.name}: pattern {pattern!r}: {error}") from error
