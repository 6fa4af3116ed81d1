"""Texts that say the same or nearly the same: MinHash over word trigrams finds candidates (Broder 1997), their exact
Jaccard similarity decides."""

import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import regex

from data_contracts.digests import sha256_bytes

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


def words(text: str) -> list[str]:
    """What is left of a text when writing is set aside: NFKC, case folded, without punctuation and white space. Signs
    that make another number or sum of it stay."""
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def shingles(found: Sequence[str], size: int = 3) -> frozenset[str]:
    """Runs of ``size`` words; fewer words are one shingle."""
    runs = zip(*(found[start:] for start in range(size)), strict=False)
    return frozenset(map(" ".join, runs)) or frozenset([" ".join(found)])


class Copy(NamedTuple):
    """Why a text goes out: ``exact`` when an earlier text has the same words; ``survivor`` is the number of the text
    that stays for it, ``similarity`` the Jaccard similarity of the two."""

    exact: bool
    survivor: int
    similarity: float


def copies(texts: Iterable[tuple[str, str]], threshold: float) -> Iterator[Copy | None]:
    """For each text in turn the `Copy` that it is, or None when it stays.

    A text comes as (all it says, the part by which near copies are looked for), which may be the same. It is a near
    copy of the first text that stays whose part and whole both have at least ``threshold`` (0.5 to 1) similarity with
    its own; 1 leaves exact copies only. Near copies are sought among the texts that stay: each is close to its
    survivor, and a chain of copies of copies pulls in nothing that is unlike. Without words there is no near copy.
    """
    index = _Index(threshold)
    wholes: dict[int, array[int]] = {}
    seen: dict[str, tuple[int, float]] = {}
    for number, (whole, part) in enumerate(texts):
        found = words(whole)
        key = sha256_bytes((" ".join(found) or whole.strip()).encode())
        if key in seen:
            yield Copy(True, *seen[key])
            continue
        asked = found if part == whole else words(part)
        copy = None
        if asked and threshold < 1:
            text = _sketched(asked)
            rest = text.hashes if part == whole else _hashes(shingles(found))
            near = (Copy(False, each, min(alike, _jaccard(wholes[each], rest))) for each, alike in index.near(text))
            copy = next((one for one in near if one.similarity >= threshold), None)
            if copy is None:
                index.add(number, text)
                wholes[number] = rest
        seen[key] = (copy.survivor, copy.similarity) if copy else (number, 1.0)
        yield copy


def near_pairs(texts: Iterable[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Index pairs (i < j) whose shingles have Jaccard similarity of at least ``threshold`` (at least 0.5)."""
    index = _Index(threshold)
    for right, text in enumerate(texts):
        sketched = _sketched(words(text))
        yield from ((left, right) for left, _ in index.near(sketched))
        index.add(right, sketched)


class _Sketched(NamedTuple):
    """A text's shingles as 64-bit hashes, a tenth of the memory of their words, and their MinHash."""

    hashes: "array[int]"
    sketch: Any


def _hashes(members: Iterable[str]) -> "array[int]":
    return array("q", map(hash, members))


def _sketched(found: Sequence[str]) -> _Sketched:
    from rensa import RMinHash

    members = list(shingles(found))
    sketch = RMinHash(_PERMUTATIONS, _SEED)
    sketch.update(members)
    return _Sketched(_hashes(members), sketch)


def _jaccard(one: "array[int]", other: "array[int]") -> float:
    common = len(set(one).intersection(other))
    return common / (len(one) + len(other) - common)


class _Index:
    """Numbered texts, to be asked for those that are near another one."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHashLSH

        # Bands so narrow that a pair at the threshold is missed less than once in 10^7: the exact check decides.
        self._lsh = RMinHashLSH(threshold, _PERMUTATIONS, 32 if threshold >= 0.8 else 64)
        self._threshold = threshold
        self._known: dict[int, array[int]] = {}

    def near(self, text: _Sketched) -> Iterator[tuple[int, float]]:
        """(number, similarity) of the texts with at least the threshold, the lowest number first."""
        for number in sorted(self._lsh.query(text.sketch)):
            known = self._known[number]
            few, many = sorted((len(known), len(text.hashes)))
            if few >= self._threshold * many and (alike := _jaccard(text.hashes, known)) >= self._threshold:
                yield number, alike

    def add(self, number: int, text: _Sketched) -> None:
        self._lsh.insert(number, text.sketch)
        self._known[number] = text.hashes


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
