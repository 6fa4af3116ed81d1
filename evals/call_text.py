"""Tool calls as models write them: JSON, JSON within ``<tool_call>`` tags or a code fence, or Python calls."""

import ast
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any

from evals.tool_calls import Call, Function

FORM = (
    'Answer with nothing but a JSON list of the calls to make, each as {"name": ..., "arguments": {...}}. '
    "Answer [] if none of the functions helps."
)
_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_FENCED = re.compile(r"\A\s*```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)
_JSON_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


def instruction(functions: Sequence[Function]) -> str:
    """The system message that offers these functions and asks for `FORM`."""
    listed = "\n".join(json.dumps(function.payload(), ensure_ascii=False) for function in functions)
    return f"You can call these functions:\n{listed}\n{FORM}"


def read_calls(text: str) -> tuple[Call, ...] | None:
    """The calls in an answer, in their order; none for ``[]``; ``None`` for an answer that is no list of calls."""
    if tagged := _TAGGED.findall(text):
        return _together([_from_json(each) for each in tagged])
    fenced = _FENCED.match(text)
    inner = fenced[1] if fenced else text
    found = _from_json(inner)
    return _from_python(inner) if found is None else found


def in_form(text: str) -> bool:
    """Whether a text is exactly what `FORM` asks for."""
    value = _loaded(text)
    return isinstance(value, list) and all(
        isinstance(each, dict)
        and each.keys() == {"name", "arguments"}
        and isinstance(each["name"], str)
        and isinstance(each["arguments"], dict)
        for each in value
    )


def fits_schema(functions: Sequence[Function], calls: Sequence[Call]) -> bool:
    """Whether every call is of a function on offer, with arguments that its JSON schema admits and no others."""
    from jsonschema import Draft202012Validator

    declared = {function.name: function for function in functions}
    return all(
        call.name in declared
        and call.arguments.keys() <= declared[call.name].properties().keys()
        and Draft202012Validator(_json_schema(declared[call.name].parameters)).is_valid(_json_value(call.arguments))
        for call in calls
    )


def _from_json(text: str) -> tuple[Call, ...] | None:
    value = _loaded(text)
    if isinstance(value, dict):
        inner = value.get("tool_calls")
        value = inner if isinstance(inner, list) else [value]
    return _together([_call(each) for each in value]) if isinstance(value, list) else None


def _call(value: Any) -> tuple[Call, ...] | None:
    """``{"name": ..., "arguments": {...}}`` under the names in use, OpenAI's ``function`` around it or not."""
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    body = inner if isinstance(inner, dict) else value
    name = body.get("name", body.get("tool"))
    given = body.get("arguments", body.get("parameters"))
    arguments = _loaded(given) if isinstance(given, str) else given
    return (Call(name, arguments),) if isinstance(name, str) and isinstance(arguments, dict) else None


def _from_python(text: str) -> tuple[Call, ...] | None:
    """``[f(a=1), g.h(b="x")]`` or one call alone; nothing is run."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in what is only read
            tree = ast.parse(text.strip(), mode="eval").body
        nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
        return tuple(_python_call(node) for node in nodes)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return None


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(each.arg is None for each in node.keywords):
        raise ValueError("no call with named arguments")
    arguments = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    return Call(ast.unparse(node.func), arguments)


def _together(found: Sequence[tuple[Call, ...] | None]) -> tuple[Call, ...] | None:
    """All of them, or ``None`` when one of them could not be read."""
    read = [each for each in found if each is not None]
    return tuple(call for each in read for call in each) if len(read) == len(found) else None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _json_schema(declared: Any) -> Any:
    """The leaderboard's names of types as JSON schema's; any type is the empty schema."""
    if isinstance(declared, list):
        return [_json_schema(each) for each in declared]
    if not isinstance(declared, dict):
        return declared
    kind = declared.get("type")
    rest = {name: _json_schema(each) for name, each in declared.items() if name != "type" or not isinstance(kind, str)}
    if not isinstance(kind, str) or kind == "any":
        return rest
    return {**rest, "type": _JSON_TYPES.get(kind, kind)}


def _json_value(value: Any) -> Any:
    """Tuples as lists, as JSON would have them."""
    if isinstance(value, dict):
        return {str(name): _json_value(each) for name, each in value.items()}
    return [_json_value(each) for each in value] if isinstance(value, list | tuple) else value
