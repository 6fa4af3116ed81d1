"""Which evaluation item a text holds: the same runs of words, or the same meaning in other words."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from data_contracts.digests import sha256_bytes
from pipelines.stages.data.near import words
from pipelines.stages.data.protocols import Embedder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RUN = 8
OVERLAP = 0.5
SIMILARITY = 0.67


class Hit(NamedTuple):
    """The item that a text holds, by its number; ``score`` is what was compared with `OVERLAP` or the similarity."""

    item: int
    how: Literal["verbatim", "paraphrase"]
    score: float


class Contamination:
    """Evaluation items, to be looked for in texts. Without an embedder only those in the same words are found."""

    def __init__(self, items: Sequence[str], embedder: Embedder | None = None, similarity: float = SIMILARITY) -> None:
        self._verbatim = _Verbatim(items)
        self._paraphrase = _Paraphrase(items, embedder, similarity) if embedder else None
        self._known: dict[str, Hit | None] = {}

    def find(self, texts: Sequence[str]) -> list[Hit | None]:
        """The best hit of each text. A text that was asked for before is not embedded again."""
        hits = [self._verbatim.find(text) for text in texts]
        if self._paraphrase is None:
            return hits
        names = [sha256_bytes(text.encode()) for text in texts]
        new = {
            name: text
            for name, text, hit in zip(names, texts, hits, strict=True)
            if hit is None and name not in self._known
        }
        self._known |= dict(zip(new, self._paraphrase.find(list(new.values())), strict=True))
        return [hit or self._known[name] for name, hit in zip(names, hits, strict=True)]


class _Verbatim:
    """Items by their runs of eight words.

    A text holds an item when they share at least half of the runs of the one that has fewer (overlap coefficient). A
    shared run counts 1/n when n items have it, so that what many items begin or end with is no evidence. An item of
    fewer than eight words is held by a text, or a line of one, that is just these words; one without words by none.
    """

    def __init__(self, items: Sequence[str]) -> None:
        self._short: dict[tuple[str, ...], int] = {}
        runs: dict[tuple[str, ...], tuple[int, set[tuple[str, ...]]]] = {}
        for number, item in enumerate(items):
            found = tuple(words(item))
            if 0 < len(found) < RUN:
                self._short.setdefault(found, number)
            elif found:
                runs.setdefault(found, (number, _runs(found)))
        self._items: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, mine in runs.values():
            for run in mine:
                self._items[run].append(number)
        self._weights = {number: sum(1 / len(self._items[run]) for run in mine) for number, mine in runs.values()}

    def find(self, text: str) -> Hit | None:
        found = tuple(words(text))
        if self._short:
            lines = [found, *(tuple(words(line)) for line in text.splitlines())] if "\n" in text else [found]
            if (number := next((self._short[line] for line in lines if line in self._short), None)) is not None:
                return Hit(number, "verbatim", 1.0)
        mine = _runs(found)
        shared: defaultdict[int, float] = defaultdict(float)
        for run in mine:
            numbers = self._items.get(run, ())
            for number in numbers:
                shared[number] += 1 / len(numbers)
        scores = [(weight / min(self._weights[number], len(mine)), -number) for number, weight in shared.items()]
        best, number = max(scores, default=(0.0, 0))
        return Hit(-number, "verbatim", min(1.0, best)) if best >= OVERLAP - 1e-9 else None


class _Paraphrase:
    """Items by meaning and by their rare words.

    Score of a text and an item: two parts cosine of their sentence embeddings, one part the share of the item's words
    that the text has too, weighted by inverse document frequency over the items (Sparck Jones 1972), words with digits
    twice. Neighbours in meaning are no leak: another problem on the same story has other numbers and names.
    """

    def __init__(self, items: Sequence[str], embedder: Embedder, similarity: float) -> None:
        self._embedder, self._similarity = embedder, similarity
        self._vectors = embedder.embed(items)
        sets = [frozenset(words(item)) for item in items]
        often = Counter(word for each in sets for word in each)
        self._column = {word: column for column, word in enumerate(often)}
        rarity = {
            word: math.log((len(items) + 1) / count) * (2 if any(map(str.isdigit, word)) else 1)
            for word, count in often.items()
        }
        totals = [sum(rarity[word] for word in each) for each in sets]
        self._shares = self._matrix(
            [{word: rarity[word] / total for word in each} for each, total in zip(sets, totals, strict=True)]
        )

    def find(self, texts: Sequence[str]) -> list[Hit | None]:
        if not texts:
            return []
        held = self._matrix([dict.fromkeys(words(text), 1.0) for text in texts])
        share = (held @ self._shares.T).toarray()
        scores: NDArray[np.float32] = (2 * (self._embedder.embed(texts) @ self._vectors.T) + share) / 3
        best = scores.argmax(axis=1)
        return [
            Hit(int(item), "paraphrase", float(row[item])) if row[item] >= self._similarity else None
            for row, item in zip(scores, best, strict=True)
        ]

    def _matrix(self, texts: Sequence[Mapping[str, float]]) -> Any:
        """[texts, words of the items]: each text's number for each word."""
        from scipy.sparse import csr_array

        cells = [
            (row, self._column[word], value)
            for row, each in enumerate(texts)
            for word, value in each.items()
            if word in self._column
        ]
        rows, columns, values = zip(*cells, strict=True) if cells else ((), (), ())
        return csr_array((values, (rows, columns)), shape=(len(texts), len(self._column)), dtype=float)


def _runs(found: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(found[start : start + RUN]) for start in range(len(found) - RUN + 1)}
