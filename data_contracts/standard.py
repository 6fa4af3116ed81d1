"""The Open Data Contract Standard's own JSON schema, which comes with the package open-data-contract-standard.

The package's pydantic models are not used: they let unknown keys and wrong kinds by below the top level.
"""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML as JSON would say it: a date stays text, as the standard has it."""

    yaml_implicit_resolvers = {
        first: [resolver for resolver in resolvers if resolver[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str) -> Any:
    """Raises ``yaml.YAMLError``."""
    return yaml.load(text, Loader=_Loader)


def faults(document: Any) -> list[str]:
    """Where a document breaks the standard, and how; empty when it keeps it."""
    from jsonschema.exceptions import best_match

    found = list(_validator().iter_errors(document))
    # Where a part is wrong, the schema also calls its good fields unknown: that is told only of parts without a fault.
    wrong = {tuple(error.absolute_path) for error in found if error.validator != "unevaluatedProperties"}
    told: dict[str, None] = {}
    for error in found:
        place = tuple(error.absolute_path)
        if error.validator == "unevaluatedProperties" and any(each[: len(place)] == place for each in wrong):
            continue
        deepest = best_match([error]) or error
        told[f"{place_in(document, deepest.absolute_path)}: {_message(deepest)}"] = None
    return list(told)


def _message(error: Any) -> str:
    """The validator's words; of a choice between fields, the fields."""
    if error.context and all(each.validator == "required" for each in error.context):
        choices = [name for each in error.context for name in each.validator_value]
        return f"needs one of {', '.join(dict.fromkeys(choices))}"
    return str(error.message)


def place_in(document: Any, steps: Iterable[int | str]) -> str:
    """A place in the words of the file (``schema.rows.properties.text.required``): what lists hold goes by name."""
    words = []
    for step in steps:
        document = _inner(document, step)
        name = document.get("name") if isinstance(step, int) and isinstance(document, dict) else None
        words.append(str(name or step))
    return ".".join(words) or "contract"


def _inner(value: Any, step: int | str) -> Any:
    try:
        return value[step]
    except (LookupError, TypeError):
        return None


@cache
def _validator() -> Any:
    from jsonschema import Draft201909Validator

    schema = json.loads((files("open_data_contract_standard") / "schema.json").read_text(encoding="utf-8"))
    for branch in _typed(schema["$defs"]["SchemaBaseProperty"]["allOf"]):
        branch["if"]["required"] = ["logicalType"]
    return Draft201909Validator(schema)


def _typed(branches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What 3.2.0 as packaged asks of maps and vectors also where no logicalType is stated, so that no property could
    leave it out (corrected upstream: bitol-io/open-data-contract-standard, issue 322)."""
    for branch in branches:
        kind = branch.get("if", {}).get("properties", {}).get("logicalType", {}).get("const")
        if kind in ("map", "vector"):
            yield branch
