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


def shingles(found: Sequence[str], size: int = 3) -> list[str]:
    """Runs of ``size`` words, in their order; fewer words are one shingle."""
    runs = zip(*[found[start:] for start in range(size)], strict=False)
    return list(map(" ".join, runs)) or [" ".join(found)]


class Copy(NamedTuple):
    """Why a text goes out: ``exact`` when an earlier text has the same words; ``survivor`` is the number of the text
    that stays for it, ``similarity`` that of the two: Jaccard, or for ``semantic`` the cosine of their embeddings."""

    how: Literal["exact", "near", "semantic"]
    survivor: int
    similarity: float


def copies(
    texts: Iterable[tuple[str, str]], threshold: float, meaning: "Meaning | None" = None
) -> Iterator[Copy | None]:
    """For each text in turn the `Copy` that it is, or None when it stays.

    A text comes as (all it says, the part by which near copies are looked for), which may be the same. It is a near
    copy of the first text that stays whose part and whole both have at least ``threshold`` (0.5 to 1) similarity with
    its own; 1 leaves no near copies. Near copies, and with ``meaning`` copies in other words, are
    sought among the texts that stay: each is close to its survivor, and a chain of copies of copies pulls in nothing
    that is unlike. Without words there is no such copy.
    """
    index = _Index(threshold)
    seen: dict[str, int] = {}
    similarity: dict[str, float] = {}
    for number, (whole, part) in enumerate(meaning.ahead(texts) if meaning else texts):
        found = words(whole)
        said = " ".join(found)
        key = said or whole.strip()
        if (survivor := seen.get(key)) is not None:
            yield Copy("exact", survivor, similarity.get(key, 1.0))
            continue
        copy, sketch = None, None
        asked, asking = (found, said) if part == whole else _words_and_said(part)
        if asked and threshold < 1:
            sketch, near = index.near(shingles(asked))
            if near:
                if part != whole:
                    rest = frozenset(shingles(found))
                    near = [(each, min(alike, _jaccard(_members(index.known[each][2]), rest))) for each, alike in near]
                copy = next((Copy("near", each, alike) for each, alike in near if alike >= threshold), None)
        if copy is None and meaning is not None:
            copy = meaning.copy(number)
        if copy is not None:
            seen[key], similarity[key] = copy.survivor, copy.similarity
        else:
            seen[key] = number
            if sketch is not None:
                index.add(number, asking, sketch, said)
        yield copy


def _words_and_said(text: str) -> tuple[list[str], str]:
    found = words(text)
    return found, " ".join(found)


def near_pairs(texts: Iterable[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Index pairs (i < j) whose shingles have Jaccard similarity of at least ``threshold`` (at least 0.5)."""
    index = _Index(threshold)
    for right, text in enumerate(texts):
        found, said = _words_and_said(text)
        sketch, near = index.near(shingles(found))
        yield from ((left, right) for left, _ in near)
        index.add(right, said, sketch, said)


@lru_cache(maxsize=4096)
def _members(said: str) -> frozenset[str]:
    """Shingles of an earlier text: they take ten times the memory of its words, so that only those in use are kept."""
    return frozenset(shingles(said.split(" ")))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


class _Index:
    """Numbered texts, to be asked for those that are near another one. ``known`` holds of each the words by which it is
    looked for, their MinHash, and the words of all it says."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._sketch = RMinHash
        # Bands so narrow that a pair at the threshold is missed less than once in 10^7: the exact check decides.
        self._lsh = RMinHashLSH(threshold, _PERMUTATIONS, 32 if threshold >= 0.8 else 64)
        self._threshold = threshold
        # What the estimate puts 5.5 standard deviations below the threshold needs no exact check.
        self._least = threshold - 5.5 * (threshold * (1 - threshold) / _PERMUTATIONS) ** 0.5
        self.known: dict[int, tuple[str, Any, str]] = {}

    def near(self, runs: list[str]) -> tuple[Any, list[tuple[int, float]]]:
        """The sketch of a text, and (number, similarity) of those with at least the threshold, the lowest first."""
        sketch = self._sketch(_PERMUTATIONS, _SEED)
        sketch.update(runs)
        known, least = self.known, self._least
        likely = [number for number in self._lsh.query(sketch) if sketch.jaccard(known[number][1]) > least]
        if not likely:
            return sketch, []
        members = frozenset(runs)
        exact = ((number, _jaccard(members, _members(known[number][0]))) for number in sorted(likely))
        return sketch, [(number, alike) for number, alike in exact if alike >= self._threshold]

    def add(self, number: int, said: str, sketch: Any, whole: str) -> None:
        self._lsh.insert(number, sketch)
        self.known[number] = (said, sketch, whole)


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
