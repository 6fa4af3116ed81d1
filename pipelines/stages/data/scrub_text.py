"""Personal data out of one text: every finding gives way to what an operator makes of it. JSON stays JSON."""

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from data_contracts.digests import hex_of, sha256_bytes
from pipelines.stages.data.protocols import Finding
from pipelines.stages.data.substitutes import assign

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|-?\d[\d.eE+-]*')
_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL
)
_HALF = re.compile("[\ud800-\udfff]")
"""Half a character: JSON can escape it, UTF-8 cannot hold it."""
_BETWEEN = "\n\n"


class Operator(StrEnum):
    """What stands where a finding stood: its kind, stars, a keyed hash, or a made-up value of its kind."""

    REDACT = "redact"
    MASK = "mask"
    HASH = "hash"
    REPLACE = "replace"


class Leaf(NamedTuple):
    """A piece of text to read: ``value`` as a reader sees it, ``places[i]`` where its i-th character starts in the
    whole text, and one place more for its end. ``literal`` spans what is written anew: a JSON literal, or the text."""

    key: str
    value: str
    places: Sequence[int]
    literal: tuple[int, int]


def leaves(text: str) -> list[Leaf]:
    """Of a JSON object or array its values, each with its key; of another text the text itself."""
    if not _is_json(text):
        return [Leaf("", text, range(len(text) + 1), (0, len(text)))]
    found, key = [], ""
    for match in _STRING.finditer(text):
        start, end = match.span()
        if match["key"]:
            key = json.loads(text[start : match.start("key")])
            continue
        if text[start] != '"':
            found.append(Leaf(key, match[0], range(start, end + 1), (start, end)))
            continue
        value = json.loads(match[0], strict=False)
        places = [each.start() for each in _CHARACTER.finditer(text, start + 1, end - 1)]
        found.append(Leaf(key, value, [*places, end - 1], (start, end)))
    return found


def read_as(found: Sequence[Leaf]) -> str:
    """What a detector reads: each value behind its key, which often says what it is."""
    return _BETWEEN.join(f"{leaf.key}: {leaf.value}" if leaf.key else leaf.value for leaf in found)


def scrubbed(
    text: str, found: Sequence[Leaf], findings: Sequence[Finding], operator: Operator, key: bytes = b""
) -> tuple[str, list[Finding]]:
    """The text with its findings replaced, and the findings with their places in ``text``.

    ``findings`` lie in `read_as` of the leaves; what of them is key or gap is left out. Raises `ValueError` for the
    operator hash without a key.
    """
    within = list(_within(found, findings))
    values: dict[str, str] = {}
    for leaf, finding in within:
        values.setdefault(leaf.value[finding.start : finding.end], finding.kind)
    instead = made(operator, values, text, key)
    parts, done, placed = [], 0, []
    for leaf in found:
        here = [finding for owner, finding in within if owner is leaf]
        if not here:
            continue
        pieces, last = [], 0
        for finding in here:
            pieces += [leaf.value[last : finding.start], instead[leaf.value[finding.start : finding.end]]]
            last = finding.end
            placed.append(finding._replace(start=leaf.places[finding.start], end=leaf.places[finding.end]))
        new = "".join([*pieces, leaf.value[last:]])
        start, end = leaf.literal
        whole = (start, end) == (0, len(text))
        parts += [text[done:start], new if whole else json.dumps(new, ensure_ascii=bool(_HALF.search(new)))]
        done = end
    return "".join([*parts, text[done:]]), placed


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except RecursionError:
        return True  # deeper than the parser goes; its literals are found all the same
    except ValueError:
        return False
    return True


def _within(found: Sequence[Leaf], findings: Sequence[Finding]) -> Iterator[tuple[Leaf, Finding]]:
    """Each finding's part in each leaf, with its place in the leaf's value."""
    offset, waiting = 0, list(findings)
    for leaf in found:
        start = offset + (len(leaf.key) + 2 if leaf.key else 0)
        end = start + len(leaf.value)
        while waiting and waiting[0].end <= start:
            waiting.pop(0)
        for finding in waiting:
            if finding.start >= end:
                break
            if finding.end > start:
                yield leaf, finding._replace(start=max(finding.start - start, 0), end=min(finding.end, end) - start)
        offset = end + len(_BETWEEN)


def made(operator: Operator, values: Mapping[str, str], text: str, key: bytes) -> dict[str, str]:
    """Value -> what stands for it, for each value (value -> kind) of a text."""
    match operator:
        case Operator.REDACT:
            return {value: f"<{kind}>" for value, kind in values.items()}
        case Operator.MASK:
            return dict.fromkeys(values, "****")
        case Operator.HASH:
            if not key:
                raise ValueError("a hash needs a key: without one a short value is found by trying them all")
            return {value: f"<{kind}:{_hash(key, value)}>" for value, kind in values.items()}
        case Operator.REPLACE:
            start = int(hex_of(sha256_bytes(text.encode("utf-8", "surrogatepass")))[:8], 16)
            return assign(values, text.casefold(), start)


def _hash(key: bytes, value: str) -> str:
    return hmac.new(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]
