"""Patterns of personal data that Presidio has no recogniser for, or one that misses most of what people write. Each
stands behind a cheap test, since most texts hold none of it."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from pipelines.stages.data.protocols import Finding
from resources.pii_addresses import ADDRESSES, CORNERS, POST_CODE, REST
from resources.pii_grammar import Pattern
from resources.pii_numbers import NUMBERS, SAID
from resources.pii_words import WORDS

_DIGIT = re.compile(r"\d")
_CUES = re.compile(
    r"licen[cs]e|passport|account|acct|routing|itin|taxpayer|ssn|social\s+security|driver", re.IGNORECASE
)
_LEADING = re.compile(r"(?<![\w.,$€£#+/-])(?:\d{1,5}[ \t]){1,2}$|\bcorner of $", re.IGNORECASE)
"""A number before a street is part of it."""
_PLACE_SCORE = 0.5
"""Of the city, state and post code that follow a street."""


class _Compiled(NamedTuple):
    digits: list[tuple[Pattern, Any]]
    said: list[tuple[Pattern, Any]]
    words: list[tuple[Pattern, Any]]
    rest: Any
    post_code: Any


@cache
def _compiled() -> _Compiled:
    import regex

    def ready(patterns: Iterable[Pattern]) -> list[tuple[Pattern, Any]]:
        return [(p, regex.compile(p.expression, regex.IGNORECASE if p.flags else 0)) for p in patterns]

    return _Compiled(
        ready(ADDRESSES + NUMBERS), ready(SAID), ready(CORNERS + WORDS), *map(regex.compile, (REST, POST_CODE))
    )


def pattern_findings(text: str) -> Iterator[Finding]:
    """Findings of every pattern, overlaps and all."""
    ready = _compiled()
    patterns = ready.words
    if _DIGIT.search(text):
        patterns = patterns + ready.digits + (ready.said if _CUES.search(text) else [])
    for pattern, expression in patterns:
        for match in expression.finditer(text):
            start, end = match.span()
            if pattern.kind == "STREET_ADDRESS":
                if number := _LEADING.search(text, max(0, start - 14), start):
                    start = number.start()
                rest = ready.rest.match(text, end)
                end = max(end, rest.end("units"))
                yield from _place(text, end, rest.end())
            yield Finding(start, end, pattern.kind, pattern.score)


def _place(text: str, start: int, end: int) -> Iterator[Finding]:
    """What follows a street, less the comma and the blanks before it: post codes, and the place."""
    start += len(text[start:end]) - len(text[start:end].lstrip(" \t\n,"))
    for code in _compiled().post_code.finditer(text, start, end):
        yield Finding(code.start(), code.end(), "ZIP_CODE", _PLACE_SCORE)
    if end > start + 1:
        yield Finding(start, end, "LOCATION", _PLACE_SCORE)
