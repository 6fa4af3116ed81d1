"""Texts that say nearly the same: MinHash over word trigrams finds candidates (Broder 1997), their exact Jaccard
similarity decides."""

import re
from collections.abc import Iterable, Iterator, Sequence

_PERMUTATIONS = 128
_SEED = 42
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case words without punctuation: what is left when two texts differ only in writing."""
    return _WORD.findall(text.casefold())


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """Runs of ``size`` words; a shorter text is one shingle."""
    found = words(text)
    return frozenset(" ".join(found[i : i + size]) for i in range(max(1, len(found) - size + 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def near_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Index pairs (i < j) whose shingles have Jaccard similarity of at least ``threshold`` (at least 0.5)."""
    from rensa import RMinHash, RMinHashLSH

    sets = [shingles(text) for text in texts]
    # Bands so narrow that a pair at the threshold is missed less than once in 10^7: the exact check decides.
    index = RMinHashLSH(threshold, _PERMUTATIONS, 32 if threshold >= 0.8 else 64)
    for right, members in enumerate(sets):
        sketch = RMinHash(_PERMUTATIONS, _SEED)
        sketch.update(sorted(members))
        for left in sorted(index.query(sketch)):
            if jaccard(sets[left], members) >= threshold:
                yield left, right
        index.insert(right, sketch)


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
