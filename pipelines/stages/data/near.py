"""Texts that say the same or nearly the same: MinHash over word trigrams finds candidates (Broder 1997), their exact
Jaccard similarity decides."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import regex

if TYPE_CHECKING:
    from pipelines.stages.data.meaning import Meaning

_PERMUTATIONS = 128
_SEED = 42
_WORD = regex.compile(
    r"""
      [\p{L}\p{M}\p{N}]+                    # words of any script
    | \p{So}                                # emoji
    | [+*/^<>=.](?<=\p{N}\s?.)(?=\s?\p{N})  # 2*3 is not 2/3, 3.5 is not 35
    | [-−](?<![\p{L}\p{N}].)(?=\p{N})       # -5 is not 5
    """,
    regex.VERBOSE,
)
_ASCII_WORD = re.compile(r"[a-z0-9]+|[+*/^<>=.](?:(?<=\d.)|(?<=\d\s.))(?=\s?\d)|-(?<![a-z0-9].)(?=\d)")
"""The same for texts of ASCII letters alone, in half the time."""


def words(text: str) -> list[str]:
    """What is left of a text when writing is set aside: NFKC, case folded, without punctuation and white space. Signs
    that make another number or sum of it stay."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def shingles(found: Sequence[str], size: int = 3) -> frozenset[str]:
    """Runs of ``size`` words; fewer words are one shingle."""
    runs = zip(*(found[start:] for start in range(size)), strict=False)
    return frozenset(map(" ".join, runs)) or frozenset([" ".join(found)])


class Said(NamedTuple):
    """A text to look for copies of: all it says, and the part by which near copies are looked for, which may be the
    same. Copies in meaning have ``fixed`` in common, and each of ``free`` in other words."""

    whole: str
    part: str
    fixed: str = ""
    free: tuple[str, ...] = ()


class Copy(NamedTuple):
    """Why a text goes out: ``exact`` when an earlier text has the same words; ``survivor`` is the number of the text
    that stays for it, ``similarity`` that of the two: Jaccard, or for ``semantic`` the cosine of their embeddings."""

    how: Literal["exact", "near", "semantic"]
    survivor: int
    similarity: float


def copies(texts: Iterable[Said], threshold: float, meaning: "Meaning | None" = None) -> Iterator[Copy | None]:
    """For each text in turn the `Copy` that it is, or None when it stays.

    A text is a near copy of the first that stays whose part and whole both have at least ``threshold`` (0.5 to 1)
    similarity with its own; 1 leaves no near copies. Near copies, and with ``meaning`` copies in other words, are
    sought among the texts that stay: each is close to its survivor, and a chain of copies of copies pulls in nothing
    that is unlike. Without words there is no such copy.
    """
    index = _Index(threshold)
    wholes: dict[int, str] = {}
    seen: dict[str, tuple[int, float]] = {}
    for number, text in enumerate(meaning.ahead(texts) if meaning else texts):
        whole, part = text.whole, text.part
        found = words(whole)
        said = " ".join(found)
        key = said or whole.strip()
        if key in seen:
            yield Copy("exact", *seen[key])
            continue
        asked, copy, sketched = (found if part == whole else words(part)), None, None
        if asked and threshold < 1:
            sketched = index.sketched(asked, said if part == whole else " ".join(asked))
            rest = sketched.members if part == whole else shingles(found)
            for each, alike in index.near(sketched):
                if part != whole:
                    alike = min(alike, _jaccard(_members(wholes[each]), rest))
                if alike >= threshold:
                    copy = Copy("near", each, alike)
                    break
        if copy is None and meaning is not None:
            copy = meaning.copy(number)
        if copy is None and sketched is not None:
            index.add(number, sketched)
            wholes[number] = said
        seen[key] = (copy.survivor, copy.similarity) if copy else (number, 1.0)
        yield copy


def near_pairs(texts: Iterable[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Index pairs (i < j) whose shingles have Jaccard similarity of at least ``threshold`` (at least 0.5)."""
    index = _Index(threshold)
    for right, text in enumerate(texts):
        found = words(text)
        sketched = index.sketched(found, " ".join(found))
        yield from ((left, right) for left, _ in index.near(sketched))
        index.add(right, sketched)


class _Sketched(NamedTuple):
    """A text as its words with blanks between them, its shingles and their MinHash."""

    said: str
    members: frozenset[str]
    sketch: Any


@lru_cache(maxsize=4096)
def _members(said: str) -> frozenset[str]:
    """Shingles of an earlier text: they take ten times the memory of its words, so that only those in use are kept."""
    return shingles(said.split(" "))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


class _Index:
    """Numbered texts, to be asked for those that are near another one."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._sketch = RMinHash
        # Bands so narrow that a pair at the threshold is missed less than once in 10^7: the exact check decides.
        self._lsh = RMinHashLSH(threshold, _PERMUTATIONS, 32 if threshold >= 0.8 else 64)
        self._threshold = threshold
        self._known: dict[int, tuple[str, Any]] = {}

    def sketched(self, found: Sequence[str], said: str) -> _Sketched:
        members = shingles(found)
        sketch = self._sketch(_PERMUTATIONS, _SEED)
        sketch.update(members)
        return _Sketched(said, members, sketch)

    def near(self, text: _Sketched) -> list[tuple[int, float]]:
        """(number, similarity) of the texts with at least the threshold, the lowest number first."""
        found = []
        for number in self._lsh.query(text.sketch):
            said, sketch = self._known[number]
            # The estimate's standard deviation is at most 0.044: what it puts far below needs no exact check.
            if text.sketch.jaccard(sketch) > self._threshold - 0.25:
                alike = _jaccard(text.members, _members(said))
                if alike >= self._threshold:
                    found.append((number, alike))
        return sorted(found)

    def add(self, number: int, text: _Sketched) -> None:
        self._lsh.insert(number, text.sketch)
        self._known[number] = (text.said, text.sketch)


def groups(size: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of ``size`` things the smallest index of those it is linked to, directly or through others."""
    root = list(range(size))

    def find(one: int) -> int:
        while root[one] != one:
            root[one] = root[root[one]]
            one = root[one]
        return one

    for left, right in links:
        a, b = sorted((find(left), find(right)))
        root[b] = a
    return [find(each) for each in range(size)]
