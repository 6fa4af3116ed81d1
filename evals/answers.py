"""The form of an answer where tools are on offer: one JSON object, a call or words. Training rows, few-shot examples,
evaluation and serving all take it from here.

``{"tool": name, "arguments": {...}}`` or ``{"tool": "none", "reply": text}``. Words begin like a call, so that the
schema acts where the model decides: it strikes out tools that are not on offer, and the next best choice is taken.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import JsonValue

from data_contracts import records
from data_contracts.records import NO_TOOL, ToolSpec


class Answer(NamedTuple):
    """What a text says: a call (``tool`` is set) or words (``reply`` is set)."""

    tool: str | None
    arguments: dict[str, str]
    reply: str | None


def call(tool: str, arguments: Mapping[str, str]) -> str:
    return json.dumps({"tool": tool, "arguments": dict(arguments)})


def words(text: str) -> str:
    return json.dumps({"tool": NO_TOOL, "reply": text})


def parse_answer(tools: Sequence[ToolSpec], text: str) -> Answer | None:
    """The answer, if the text is nothing but one object in one of the two forms, the tool is on offer, and the
    arguments are texts under exactly the names that the tool declares."""
    try:
        value = json.loads(text, object_pairs_hook=_no_repeats)
    except ValueError:
        return None
    match value:
        case {"tool": records.NO_TOOL, "reply": str(said), **rest} if said.strip() and not rest:
            return Answer(None, {}, said)
        case {"tool": str(name), "arguments": dict(arguments), **rest} if not rest:
            declared = {tool.name: set(tool.parameters) for tool in tools}
            fits = declared.get(name) == set(arguments)
            if fits and all(isinstance(given, str) for given in arguments.values()):
                return Answer(name, arguments, None)
    return None


def constraint(tools: Sequence[ToolSpec], characters: int) -> dict[str, Any]:
    """vLLM's ``structured_outputs``: nothing but a valid answer can be written, white space between its parts aside.
    Each text in it has 1 to ``characters`` characters."""
    return {"json": answer_schema(tools, characters)}


def answer_schema(tools: Sequence[ToolSpec], characters: int) -> dict[str, JsonValue]:
    """JSON schema of every valid answer when these tools are on offer."""
    text: dict[str, JsonValue] = {"type": "string", "minLength": 1, "maxLength": characters}
    calls: list[JsonValue] = [
        _closed({"tool": {"const": tool.name}, "arguments": _closed(dict.fromkeys(tool.parameters, text))})
        for tool in tools
    ]
    return {"anyOf": [*calls, _closed({"tool": {"const": NO_TOOL}, "reply": text})]}


def _closed(properties: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found
