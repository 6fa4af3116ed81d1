"""Numbers as people and models write them: thousands separators, a decimal comma, fractions, powers of ten, units."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pydantic import Field

from data_contracts.frozen import Frozen

_SPACE = "\u00a0\u2009\u202f '’"
"""What may part thousands, besides comma and point."""
_NUMBER = re.compile(
    rf"(?<![\w.,])(?P<sign>[-−–+](?=[$€£¥]?[\d.]))?[$€£¥]?\s?"
    rf"(?P<digits>\d{{1,3}}(?P<parted>[{_SPACE}.,])\d{{3}}(?:(?P=parted)\d{{3}})*(?:[.,]\d+)?|\d+(?:[.,]\d+)?|\.\d+)"
    r"(?![.,]?\d)"
    r"(?:[eE](?P<power>[+-]?\d{1,3})|\s?[x×*·]\s?10\s?(?:\^|\*\*)\s?\{?(?P<ten>[+-]?\d{1,3})\}?)?"
    r"(?:\s?/\s?(?P<below>\d+)(?![\d/]))?"
)
_CURRENCY = re.compile("[$€£¥]")
_MARKED = re.compile(r"(?:####|\\boxed\{|\banswer(?: is|:))\s*[*`$\\(]*\s*(?=[-−+]?[$€£¥]?\s?\.?\d)", re.IGNORECASE)
_UNIT = re.compile(r"\s?([%°]\w?|[$€£¥]|[^\W\d_][\w/²³]*)")


class Number(Frozen):
    """A value that is right within ``tolerance`` (absolute). ``units`` maps a unit to what one of it is in the unit of
    the value, e.g. ``{"km": 1, "m": 0.001}``; a number without any unit is taken to be in the value's."""

    value: float
    tolerance: float = Field(default=1e-9, ge=0)
    units: Mapping[str, float] = {}


class Written(NamedTuple):
    start: int
    value: float
    unit: str


def numbers(text: str) -> Iterator[Written]:
    """Every number in a text, in its order, with the word or sign that follows it (or the currency before it)."""
    for match in _NUMBER.finditer(text):
        value = _value(match)
        if value is None:
            continue
        after = _UNIT.match(text, match.end())
        before = _CURRENCY.search(match[0])
        yield Written(match.start(), value, before[0] if before else after[1] if after else "")


def answered_number(text: str, wanted: Number) -> float | None:
    """The number that an answer ends on, in the unit of ``wanted``: of the numbers after a mark of an answer (``####``,
    a box, "the answer is") the first after the last mark; else the last one with a known unit; else the last. ``None``
    when there is none."""
    found = list(numbers(text))
    marks = [match.end() for match in _MARKED.finditer(text)]
    after = [each for each in found if marks and each.start >= marks[-1]]
    known = [each for each in found if each.unit in wanted.units]
    if not found:
        return None
    final = after[0] if after else (known or found)[-1]
    return final.value * wanted.units.get(final.unit, 1.0)


def is_right(text: str, wanted: Number) -> bool:
    found = answered_number(text, wanted)
    return found is not None and abs(found - wanted.value) <= wanted.tolerance


def _value(match: re.Match[str]) -> float | None:
    whole = _plain(match["digits"])
    try:
        value = float(whole) * 10.0 ** int(match["power"] or match["ten"] or 0)
        value = value / int(match["below"]) if match["below"] else value
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return -value if match["sign"] in ("-", "−", "–") else value


def _plain(digits: str) -> str:
    """Digits with a decimal point at most. Of two signs the last one is the decimal's; one sign alone parts thousands
    where it comes twice, or is a comma before exactly three digits (but for a leading zero)."""
    digits = re.sub(f"[{_SPACE}]", "", digits)
    point, comma = digits.rfind("."), digits.rfind(",")
    if point >= 0 and comma >= 0:
        thousands, decimal = (",", ".") if point > comma else (".", ",")
        return digits.replace(thousands, "").replace(decimal, ".")
    sign = "." if point >= 0 else ","
    pieces = digits.split(sign)
    if len(pieces) > 2 or (sign == "," and len(pieces) == 2 and len(pieces[1]) == 3 and pieces[0] not in ("", "0")):
        return "".join(pieces)
    return ".".join(pieces)
