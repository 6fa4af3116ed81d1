"""Check of one record against its data contract: reasons, each with field, fault and remedy, never with a value."""

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from data_contracts.contract import Property, Table


def check_row(table: Table, record: Mapping[str, Any]) -> list[str]:
    """What is wrong with a record; empty when it keeps the contract."""
    known = {column.name for column in table.properties}
    reasons = [
        f"{field}: the contract has no such field; add it to the schema or drop it from the source"
        for field in record
        if field not in known
    ]
    for column in table.properties:
        value = record.get(column.name)
        if value is None or value == "":
            if column.required:
                reasons.append(f"{column.name}: is required and empty; fill it in or leave the row out")
        elif column.logicalType and not _TYPES[column.logicalType](value):
            reasons.append(f"{column.name}: is {type(value).__name__}, not {column.logicalType}; correct the value")
        else:
            reasons += _options(column, value) + _rules(column, value)
    return reasons


class Repeats:
    """Holds the columns that the contract calls ``unique``, and its primary key, which several columns may make up,
    against the rows that went before."""

    def __init__(self, table: Table) -> None:
        unique = [(column.name,) for column in table.properties if column.unique]
        key = tuple(column.name for column in table.properties if column.primaryKey)
        self.seen: dict[tuple[str, ...], set[str]] = {fields: set() for fields in (*unique, key) if fields}

    def check(self, record: Mapping[str, Any]) -> list[str]:
        reasons = []
        for fields, seen in self.seen.items():
            value = repr([record.get(field) for field in fields])
            if value in seen:
                same = "the same value" if len(fields) == 1 else "the same values"
                reasons.append(f"{', '.join(fields)}: another row has {same}; make it unique")
            seen.add(value)
        return reasons


def _options(column: Property, value: Any) -> list[str]:
    options, reasons = column.logicalTypeOptions, []
    if isinstance(value, str):
        if options.minLength is not None and len(value) < options.minLength:
            reasons.append(f"{column.name}: is shorter than {options.minLength} characters; complete it")
        if options.maxLength is not None and len(value) > options.maxLength:
            reasons.append(f"{column.name}: is longer than {options.maxLength} characters; shorten or split it")
        if options.pattern is not None and not re.search(options.pattern, value):
            reasons.append(f"{column.name}: does not match {options.pattern}; correct the value")
    if column.logicalType in ("integer", "number"):
        if options.minimum is not None and float(value) < options.minimum:
            reasons.append(f"{column.name}: is below {options.minimum:g}; correct the value")
        if options.maximum is not None and float(value) > options.maximum:
            reasons.append(f"{column.name}: is above {options.maximum:g}; correct the value")
    return reasons


def _rules(column: Property, value: Any) -> list[str]:
    reasons = []
    if column.enum and value not in column.enum:
        reasons.append(f"{column.name}: is not one of {', '.join(map(str, column.enum))}; correct the value")
    for rule in column.quality:
        allowed, pattern = rule.arguments.get("validValues"), rule.arguments.get("pattern")
        if allowed is not None and value not in allowed:
            reasons.append(f"{column.name}: is not one of {', '.join(map(str, allowed))}; correct the value")
        if pattern is not None and not re.search(pattern, str(value)):
            reasons.append(f"{column.name}: does not match {pattern}; correct the value")
    return reasons


def _parses(parse: Callable[[str], object]) -> Callable[[Any], bool]:
    """Whether a value is of a type or is text of it, as every value of a CSV file is."""

    def check(value: Any) -> bool:
        try:
            parse(str(value))
        except ValueError:
            return False
        return not isinstance(value, bool)

    return check


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _parses(int),
    "number": _parses(float),
    "boolean": lambda value: isinstance(value, bool) or str(value).lower() in ("true", "false"),
    "date": _parses(date.fromisoformat),
    "time": _parses(time.fromisoformat),
    "timestamp": _parses(datetime.fromisoformat),
    "array": lambda value: isinstance(value, list),
    "vector": lambda value: isinstance(value, list) and all(isinstance(each, int | float) for each in value),
    "object": lambda value: isinstance(value, dict),
    "map": lambda value: isinstance(value, dict),
}
