"""Take words of training rows out of a text. What the program says itself names rows by digest, but a library's error
may quote what it was given, and logs and records must not hold that."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_contracts.errors import AssayError
from pipelines.stages.train.job import RunFiles

MASK = "[row text]"
_ESCAPED = re.compile(r"\\[nrt]")
_WORD = re.compile(r"\w[\w@.+'-]*\w|\w")
_TOGETHER = 3
"""So many words in the order in which a row has them are a quotation."""
_NUMBER = 6
"""A word of this length with a digit or an @ (an account, an address) is one by itself."""


def described(error: BaseException, files: RunFiles) -> str:
    """What an error says. One of ours names rows by digest; of any other, words of the run's rows are taken out."""
    return str(error) if isinstance(error, AssayError) else without_rows(str(error), files)


def without_rows(text: str, files: RunFiles) -> str:
    """``text`` with every quotation from the rows of a run masked, as long as they lie there."""
    places = list(_WORD.finditer(_ESCAPED.sub("  ", text)))
    words = [place[0].casefold() for place in places]
    known = _quotations(words)
    if not known:
        return text
    quoted: set[int] = set()
    found = {piece for row in _texts(files.rows) for piece in _pieces(row) if piece in known}
    for piece in found:
        for start in known[piece]:
            quoted.update(range(start, start + len(piece)))
    made, end = "", 0
    for number in sorted(quoted):
        place = places[number]
        made += (text[end : place.start()] + MASK) if number - 1 not in quoted else ""
        end = place.end()
    return made + text[end:]


def _quotations(words: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """What could be a quotation, and where it begins."""
    found: dict[tuple[str, ...], list[int]] = {}
    for start, word in enumerate(words):
        if _tells(word):
            found.setdefault((word,), []).append(start)
        if start + _TOGETHER <= len(words):
            found.setdefault(tuple(words[start : start + _TOGETHER]), []).append(start)
    return found


def _pieces(text: str) -> Iterator[tuple[str, ...]]:
    words = [word.casefold() for word in _WORD.findall(text)]
    yield from ((word,) for word in words if _tells(word))
    yield from (tuple(words[start : start + _TOGETHER]) for start in range(len(words) - _TOGETHER + 1))


def _tells(word: str) -> bool:
    return len(word) >= _NUMBER and ("@" in word or any(letter.isdigit() for letter in word))


def _texts(folder: Path) -> Iterator[str]:
    """Every string in the row files of a folder; a line that is no JSON as it stands."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(errors="replace") as lines:
            for line in lines:
                try:
                    yield from _strings(json.loads(line))
                except ValueError:
                    yield line


def _strings(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in _strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [value] if isinstance(value, str) else []
