"""Instructions that code can check, in the manner of IFEval (Zhou et al. 2023, arXiv:2311.07911): each says what holds
of a whole answer. lm-eval's own checks need two more packages and a tokenizer that is fetched at import.
"""

import json
import re
from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from data_contracts.frozen import Frozen

Check = Literal[
    "words",
    "sentences",
    "paragraphs",
    "bullets",
    "placeholders",
    "contains",
    "lacks",
    "starts",
    "ends",
    "lower-case",
    "upper-case",
    "json",
    "no-commas",
    "quoted",
    "titled",
    "language",
]
_COUNTED = ("words", "sentences", "paragraphs", "bullets", "placeholders", "contains")
_WORDED = ("contains", "lacks", "starts", "ends", "language")


class Constraint(Frozen):
    """``least`` and ``most`` bound a count; ``texts`` are words or phrases, or of ``language`` its ISO 639-1 code."""

    check: Check
    texts: tuple[str, ...] = ()
    least: int | None = Field(default=None, ge=0)
    most: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _says_enough(self) -> "Constraint":
        if (self.check in _WORDED) != bool(self.texts):
            raise ValueError(f"{self.check} {'needs' if self.check in _WORDED else 'takes no'} texts")
        bounded = (self.least, self.most) != (None, None)
        if bounded and self.check not in _COUNTED:
            raise ValueError(f"{self.check} counts nothing: take out least and most")
        if self.check in _COUNTED and self.check != "contains" and not bounded:
            raise ValueError(f"{self.check} needs least, most or both")
        return self

    def holds(self, text: str) -> bool:
        text = text.strip()
        if self.check in _COUNTED:
            return bool(text) and all(self._within(count) for count in self._counts(text))
        return bool(text) and _HOLDS[self.check](text, self.texts)

    def _counts(self, text: str) -> list[int]:
        """How often; for ``contains`` of every phrase."""
        if self.check == "contains":
            return [len(_phrase(each).findall(text)) for each in self.texts]
        return [len(_PIECES[self.check].findall(text))]

    def _within(self, count: int) -> bool:
        least = 1 if self.check == "contains" and self.least is None and self.most is None else self.least or 0
        return least <= count and (self.most is None or count <= self.most)


_PIECES = {
    "words": re.compile(r"\w+(?:['’-]\w+)*"),
    "sentences": re.compile(r"[^.!?。！？]*\w[^.!?。！？]*(?:[.!?。！？]+(?=\s|\Z|[\"'”’)])|\Z)"),
    "paragraphs": re.compile(r"\S[\s\S]*?(?=\n\s*\n|\Z)"),
    "bullets": re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+\S", re.MULTILINE),
    "placeholders": re.compile(r"\[[^\[\]\n]+\]"),
}
_HOLDS: dict[str, Callable[[str, tuple[str, ...]], bool]] = {
    "lacks": lambda text, texts: not any(_phrase(each).search(text) for each in texts),
    "starts": lambda text, texts: any(text.casefold().startswith(each.casefold()) for each in texts),
    "ends": lambda text, texts: any(text.casefold().endswith(each.casefold()) for each in texts),
    "lower-case": lambda text, texts: text == text.lower() and text != text.upper(),
    "upper-case": lambda text, texts: text == text.upper() and text != text.lower(),
    "json": lambda text, texts: _is_json(text),
    "no-commas": lambda text, texts: not any(sign in text for sign in ",，、،"),
    "quoted": lambda text, texts: len(text) > 2 and text[0] in '"“' and text[-1] in '"”',
    "titled": lambda text, texts: re.search(r"<<[^<>\n]+>>", text) is not None,
    "language": lambda text, texts: _language(text) in texts,
}


def _phrase(words: str) -> re.Pattern[str]:
    """The words as whole words, in any case."""
    return re.compile(rf"(?<!\w){re.escape(words)}(?!\w)", re.IGNORECASE)


def _is_json(text: str) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\n(.*?)\n?```", text, re.DOTALL)
    try:
        return isinstance(json.loads(fenced[1] if fenced else text), dict | list)
    except (ValueError, RecursionError):
        return False


def _language(text: str) -> str:
    import py3langid

    return str(py3langid.classify(text)[0])
