"""A request's body, read with care: bounded, and JSON without tricks. `schema` says which fields it may have."""

import json
import math
from typing import Any

from starlette.requests import ClientDisconnect, Request

from data_contracts.errors import BadInput
from pipelines.stages.serve.errors import Denied

MOST_BYTES = 4 << 20
"""A context of 128k tokens, of four characters each, takes 3 MB in JSON's widest escapes."""
DEEPEST = 64
"""Levels of nesting. A tool's JSON schema has about ten; Python's own parser gives up before a thousand."""

MOST_VALUES = 50_000
"""In one field, keys counted too: some ten thousand messages. Checking more would hold up everybody's answers."""


async def read_body(request: Request, needs: str, what: str) -> dict[str, Any]:
    """An object with the text ``needs``, which is ``what``. Raises `Denied` for a body that is too large, `BadInput`
    for another fault."""
    body = _parsed(await _bytes(request))
    if not isinstance(body, dict) or not isinstance(body.get(needs), str):
        raise BadInput(f"the body must be a JSON object with `{needs}`, {what}")
    for field, value in body.items():
        _check_values(field, value)
    return body


async def _bytes(request: Request) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise Denied(413, "body_too_large", f"the body has more than {MOST_BYTES >> 20} MiB")
    except ClientDisconnect:
        raise Denied(499, "client_left", "the client left") from None
    return bytes(body)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_once, parse_float=_number, parse_constant=_no_number)
    except RecursionError:
        raise BadInput(f"the body is nested more than {DEEPEST} levels deep") from None
    except ValueError as error:
        raise BadInput(f"the body is not JSON in UTF-8 ({error})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Which of two values counts is not the same for every program that reads them."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BadInput(f"the field {name[:64]!r} stands twice")
        found[name] = value
    return found


def _number(text: str) -> float:
    """JSON has one kind of number: 46.0 is whole."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def _no_number(word: str) -> Any:
    raise BadInput(f"{word} is not JSON: a number must be finite")


def _check_values(field: str, value: Any) -> None:
    """What JSON can say and no request for vLLM: infinite numbers, half a surrogate pair."""
    waiting: list[tuple[Any, int]] = [(field, 1), (value, 2)]
    seen = 0
    while waiting:
        each, depth = waiting.pop()
        seen += 1
        if seen > MOST_VALUES:
            raise BadInput(f"{field[:64]!r} holds more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise BadInput(f"{field[:64]!r} is nested more than {DEEPEST} levels deep")
        match each:
            case dict():
                waiting += [(part, depth + 1) for pair in each.items() for part in pair]
            case list():
                waiting += [(part, depth + 1) for part in each]
            case float() if not math.isfinite(each):
                raise BadInput(f"{field[:64]!r} holds a number that is not finite")
            case str() if not each.isascii():
                try:
                    each.encode()
                except UnicodeEncodeError:
                    raise BadInput(f"{field[:64]!r} holds half of a surrogate pair, which is no character") from None
