"""Whether two texts that are near in meaning differ in wording alone, or in a number, a name, a "no". For English."""

import re
from functools import cache, lru_cache
from typing import NamedTuple

from pipelines.stages.data.near import words

_REWORDED = 3
_COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTED.split())} | {
    "thirty": "30", "forty": "40", "fifty": "50", "sixty": "60", "seventy": "70", "eighty": "80", "ninety": "90",
    "hundred": "100", "thousand": "1000", "million": "1000000", "dozen": "12", "half": "1/2", "quarter": "1/4",
    "once": "1", "single": "1", "first": "1", "twice": "2", "double": "2", "second": "2", "triple": "3", "third": "3",
}  # fmt: skip
_NEGATIONS = (
    "not no never none nobody nothing neither nor without cannot unable t hardly nowhere lack lacks missing fail fails "
    "failed"
)
"""``t`` is what `words` leaves of ``n't``."""
_LIGHT = (
    "please want like need help tell know way reason possible number time let thing kindly able wish question answer "
    "d ll m re ve s don doesn didn isn haven hasn won couldn wouldn shouldn aren wasn weren"
)
_OPPOSITES = (
    ("on", "off"), ("up", "down"), ("before", "after"), ("above", "below"), ("more", "less"), ("most", "least"),
    ("in", "out"), ("over", "under"), ("with", "without"), ("front", "back"), ("top", "bottom"),
)  # fmt: skip
_ASKING = frozenset({"when", "where", "who", "why", "how"})
_POINTING = ("from", "than", "before", "after")


def says_the_same(one: str, other: str) -> bool:
    """Whether the two differ in wording alone.

    Numbers, names, negation, opposites (on and off) and the word that asks must agree. Then either both have the same
    words of content, with numbers and names in the same order and no two words exchanged ("dog bites man"); or each has
    `_REWORDED` or more that the other lacks. In between one or two words were replaced, and that is how "red" becomes
    "blue": an edit, not another wording.
    """
    a, b = _marks(one), _marks(other)
    if not (a.digits <= b.values and b.digits <= a.values and bool(a.negations) == bool(b.negations)):
        return False
    if not (a.capitals <= b.stems and b.capitals <= a.stems) or (a.asks and b.asks and not a.asks & b.asks):
        return False
    if any({a.opposites.get(pair), b.opposites.get(pair)} == set(pair) for pair in a.opposites):
        return False
    alone = (len(a.content - b.content), len(b.content - a.content))
    if any(alone):
        return min(alone) >= _REWORDED
    names = [tuple(name for name in each.names if name not in a.small | b.small) for each in (a, b)]
    points = all(a.points[word] == b.points[word] for word in a.points.keys() & b.points.keys())
    ordered = a.numbers == b.numbers and a.negations == b.negations and names[0] == names[1] and points
    return ordered and not _exchanged(a.words, b.words)


def _exchanged(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the texts are the same but for words, at most four, of which two and two stand in each other's places."""
    if len(one) != len(other):
        return False
    places = [place for place, word in enumerate(one) if word != other[place]]
    return 0 < len(places) <= 4 and all(
        any(one[here] == other[there] and one[there] == other[here] for there in places) for here in places
    )


class _Marks(NamedTuple):
    """What of a text must stay in another wording of it. ``small`` are the words that stand there without a capital,
    ``points`` the stem behind a word such as ``from``, ``opposites`` the only one of a pair that is there."""

    words: tuple[str, ...]
    numbers: tuple[str, ...]
    digits: frozenset[str]
    values: frozenset[str]
    negations: int
    names: tuple[str, ...]
    capitals: frozenset[str]
    small: frozenset[str]
    asks: frozenset[str]
    points: dict[str, str]
    opposites: dict[tuple[str, str], str]
    stems: frozenset[str]
    content: frozenset[str]


@lru_cache(maxsize=16384)
def _marks(text: str) -> _Marks:
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.replace("’", "'"))
    found = words(text)
    held = frozenset(found)
    digits = [word for word in found if any(map(str.isdigit, word)) or not word[0].isalnum()]
    closed = _light_words() | _negations() | _NUMBERS.keys() | frozenset(digits)
    capitals = [name.casefold() for name in re.findall(r"\b[A-Z]\w*", text) if name.casefold() not in closed]
    content = {word for word in found if word not in closed}
    return _Marks(
        words=tuple(found),
        numbers=tuple(_NUMBERS.get(word, word) for word in found if word in _NUMBERS or word in digits),
        digits=frozenset(digits),
        values=frozenset(_NUMBERS.get(word, word) for word in found),
        negations=sum(word in _negations() for word in found),
        names=tuple(dict.fromkeys(capitals)),
        capitals=frozenset(map(_stem, capitals)),
        small=frozenset(re.findall(r"\b[a-z]\w*", text)),
        asks=_ASKING & held,
        points={
            word: next((_stem(each) for each in found[place + 1 :] if each in content), "")
            for place, word in enumerate(found)
            if word in _POINTING
        },
        opposites={pair: word for pair in _OPPOSITES for word in pair if not held >= set(pair) and word in held},
        stems=frozenset(map(_stem, found)),
        content=frozenset(map(_stem, content)),
    )


@cache
def _light_words() -> frozenset[str]:
    """Words that an other wording may add or leave out."""
    from spacy.lang.en.stop_words import STOP_WORDS

    return frozenset(STOP_WORDS) | frozenset(_LIGHT.split())


@cache
def _negations() -> frozenset[str]:
    return frozenset(_NEGATIONS.split())


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    from nltk.stem.snowball import EnglishStemmer

    return str(EnglishStemmer().stem(word))
