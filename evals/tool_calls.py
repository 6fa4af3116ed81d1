"""Whether tool calls are the right ones: the rules by which the Berkeley Function Calling Leaderboard compares calls
with their possible answers (Patil et al. 2025, "The Berkeley Function Calling Leaderboard", ICML), in our own words.

A possible answer holds, by parameter, every value that will do; ``""`` among them says that it may be left out. Texts
are compared without case, blanks and the signs ``,./-_*^``, and a single quote is a double one. The order of calls is
free.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, JsonValue, model_validator

from data_contracts.frozen import Frozen

Fault = Literal[
    "wrong-count",
    "wrong-name",
    "missing-required",
    "unexpected-argument",
    "wrong-type",
    "wrong-value",
    "missing-argument",
]
Accepted = Mapping[str, Sequence[Any]]
"""Parameter -> the values that will do."""

_TYPES: dict[str, type] = {
    "string": str,
    "any": str,
    "integer": int,
    "float": float,
    "number": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "object": dict,
}
"""The leaderboard's names, and JSON schema's for the same."""
_SIGNS = re.compile(r"[ ,./\-_*^]")
_OMITTED = ""


class Function(Frozen):
    """A tool that may be called. ``parameters`` is a JSON schema of an object, types in either spelling."""

    name: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, JsonValue]

    @model_validator(mode="after")
    def _declares_its_types(self) -> "Function":
        for name, declared in self.properties().items():
            if not isinstance(declared, dict) or declared.get("type") not in _TYPES:
                raise ValueError(f"{self.name}: give parameter {name} a type out of {', '.join(_TYPES)}")
        if unknown := [name for name in self.required() if name not in self.properties()]:
            raise ValueError(f"{self.name}: required names {', '.join(unknown)}, which properties does not declare")
        return self

    def properties(self) -> dict[str, Any]:
        found = self.parameters.get("properties")
        return found if isinstance(found, dict) else {}

    def required(self) -> list[str]:
        found = self.parameters.get("required")
        return [str(name) for name in found] if isinstance(found, list) else []


class Call(NamedTuple):
    name: str
    arguments: dict[str, Any]


def fault(
    functions: Sequence[Function], made: Sequence[Call], expected: Sequence[Mapping[str, Accepted]]
) -> Fault | None:
    """What is wrong with the calls, ``None`` when nothing is. ``expected`` holds one ``{name: accepted}`` a call.

    Every expected call takes the first of the calls left that fits it, as the leaderboard does: no search for a better
    assignment is made.
    """
    if len(made) != len(expected):
        return "wrong-count"
    declared = {function.name: function for function in functions}
    left = list(made)
    for wanted in expected:
        [(name, accepted)] = wanted.items()
        faults = [_call_fault(declared[name], call, accepted) for call in left]
        if None not in faults:
            return next((each for each in faults if each != "wrong-name"), "wrong-name")
        left.pop(faults.index(None))
    return None


def _call_fault(function: Function, call: Call, accepted: Accepted) -> Fault | None:
    if call.name != function.name:
        return "wrong-name"
    if any(name not in call.arguments for name in function.required()):
        return "missing-required"
    for name, value in call.arguments.items():
        if name not in function.properties() or name not in accepted:
            return "unexpected-argument"
        if found := _value_fault(function.properties()[name], value, accepted[name]):
            return found
    left_out = [name for name in accepted if name not in call.arguments]
    return "missing-argument" if any(_OMITTED not in accepted[name] for name in left_out) else None


def _value_fault(declared: Mapping[str, Any], value: Any, accepted: Sequence[Any]) -> Fault | None:
    """``accepted`` may hold another type than the declared one: a value of that type is then compared as it is written
    (the leaderboard's way to accept a variable's name)."""
    kind, part = _TYPES[declared["type"]], _part(declared)
    if declared["type"] == "tuple" and isinstance(value, tuple):
        value = list(value)
    if kind is float and type(value) is int:
        value = float(value)
    other = _type_of(accepted)
    if type(value) is kind:
        # A list needs one accepted list of whose types its parts are.
        if part and not any(not isinstance(each, list) or _typed(value, part, each) for each in accepted):
            return "wrong-type"
        as_written = other not in (None, kind)
    elif type(value) is other:
        as_written = True
    else:
        return "wrong-type"
    return None if (value in accepted if as_written else _matches(value, kind, part, accepted)) else "wrong-value"


def _matches(value: Any, kind: type, part: type | None, accepted: Sequence[Any]) -> bool:
    if kind is dict:
        return any(_fits(value, each) for each in accepted)
    if kind is list and part is dict:
        return any(
            len(value) == len(each) and all(_fits(one, other) for one, other in zip(value, each, strict=True))
            for each in accepted
        )
    if kind is list:
        # "" stands for a list that is left out, and so for an empty one.
        return [_plain(one) for one in value] in [[_plain(one) for one in each] for each in accepted]
    return _plain(value) in [_plain(each) for each in accepted]


def _fits(value: Any, accepted: Any) -> bool:
    """Whether an object has the accepted keys, each with one of its values. Only the first level is compared so; what
    lies deeper has to be equal."""
    if not isinstance(value, dict) or not isinstance(accepted, dict):
        return False
    known = all(
        key in accepted and _plain(one) in [_plain(each) for each in accepted[key]] for key, one in value.items()
    )
    return known and all(key in value or _OMITTED in each for key, each in accepted.items())


def _typed(value: Any, part: type, accepted: Sequence[Any]) -> bool:
    return all(type(one) in (part, _type_of(accepted)) for one in value)


def _type_of(accepted: Sequence[Any]) -> type | None:
    return next((type(each) for each in accepted if each != _OMITTED), None)


def _part(declared: Mapping[str, Any]) -> type | None:
    """What a list's parts are declared to be; the leaderboard looks no deeper."""
    items = declared.get("items") if _TYPES[declared["type"]] is list else None
    return _TYPES.get(str(items.get("type"))) if isinstance(items, dict) else None


def _plain(value: Any) -> Any:
    return _SIGNS.sub("", value).lower().replace("'", '"') if isinstance(value, str) else value
