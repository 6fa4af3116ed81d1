"""A question that is answered in free text or in calls, and what its answer is checked against."""

import json
import re
from typing import Any

from pydantic import Field, JsonValue, field_validator, model_validator

from data_contracts.frozen import Frozen
from data_contracts.records import Message
from evals.call_text import instruction
from evals.constraints import Constraint
from evals.numbers import Number
from evals.tool_calls import Function

_CHECKED_BY = "answers pattern json_subset number rubric calls constraints refuse secrets".split()


class QuestionItem(Frozen):
    """``before`` are the turns that come first: a system message, earlier turns, what a tool gave back.

    What is right, at least one of these: ``answers`` (any of them will do), ``pattern`` (a regular expression),
    ``json_subset`` (what the answer's JSON must hold), ``number``, ``rubric`` (criteria for a judge model), ``calls``
    (possible answers of each call, see `evals.tool_calls`; an empty list: no call is right), ``constraints``,
    ``refuse`` (whether it must be turned down), ``secrets`` (what may not leave).
    """

    id: str
    cluster: str
    text: str = Field(min_length=1)
    before: tuple[Message, ...] = ()
    functions: tuple[Function, ...] = ()
    answers: tuple[str, ...] = ()
    pattern: str | None = None
    json_subset: JsonValue = None
    number: Number | None = None
    rubric: tuple[str, ...] = ()
    calls: tuple[dict[str, dict[str, list[JsonValue]]], ...] | None = None
    constraints: tuple[Constraint, ...] = ()
    refuse: bool | None = None
    secrets: tuple[str, ...] = ()

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression ({error}): mend it") from error
        return pattern

    @field_validator("secrets")
    @classmethod
    def _can_be_told(cls, secrets: tuple[str, ...]) -> tuple[str, ...]:
        if short := [each for each in secrets if len(re.sub(r"[\W_]", "", each)) < 6]:
            raise ValueError(f"{short[0]!r} may turn up by chance: use six letters or digits at least")
        return secrets

    @model_validator(mode="after")
    def _can_be_checked(self) -> "QuestionItem":
        if self.calls is None and all(getattr(self, name) in (None, ()) for name in _CHECKED_BY):
            raise ValueError(f"says nothing of what is right: give one of {', '.join(_CHECKED_BY)}")
        if self.calls is not None and not self.functions:
            raise ValueError("names calls, but no functions are on offer: give functions")
        declared = {function.name: function for function in self.functions}
        if len(declared) != len(self.functions):
            raise ValueError("functions: a name comes twice")
        for wanted in self.calls or ():
            if len(wanted) != 1 or not wanted.keys() <= declared.keys():
                raise ValueError(f"calls: each names one function on offer ({', '.join(declared)})")
            [(name, accepted)] = wanted.items()
            if unknown := accepted.keys() - declared[name].properties().keys():
                raise ValueError(f"calls: {name} does not declare {', '.join(sorted(unknown))}")
            if lacking := set(declared[name].required()) - accepted.keys():
                raise ValueError(f"calls: {name} requires {', '.join(sorted(lacking))}")
        return self

    def turns(self) -> list[dict[str, str]]:
        """The messages to send. Functions are offered in the system message, so that every template shows them."""
        before = [message.model_dump() for message in self.before]
        if self.functions:
            given = before.pop(0)["content"] + "\n" if before and before[0]["role"] == "system" else ""
            before.insert(0, {"role": "system", "content": given + instruction(self.functions)})
        return [*before, {"role": "user", "content": self.text}]

    def said(self) -> str:
        """All that the one who answers was told, less the functions."""
        return "\n".join([*(message.content for message in self.before), self.text])

    def wanted_names(self) -> list[str]:
        """Names of the functions to call, sorted; a name stands as often as it is to be called."""
        return sorted(name for wanted in self.calls or () for name in wanted)


def holds_json(text: str, wanted: Any) -> bool:
    """Whether the JSON in an answer (the whole of it, or its one fenced block) holds what is wanted: of objects the
    wanted keys, of lists every element in its place; numbers are equal by value, texts but for white space."""
    fenced = re.search(r"```(?:json)?\n(.*?)\n?```", text, re.DOTALL)
    try:
        return _holds(json.loads(fenced[1] if fenced else text), wanted)
    except (ValueError, RecursionError):
        return False


def _holds(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            key in found and _holds(found[key], each) for key, each in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_holds(one, each) for one, each in zip(found, wanted, strict=True))
        )
    if isinstance(wanted, str):
        return isinstance(found, str) and found.split() == wanted.split()
    return isinstance(found, bool) == isinstance(wanted, bool) and bool(found == wanted)
