"""Texts that say the same in other words: near in their embeddings (SemDeDup, Abbas et al. 2023, arXiv:2303.09540), and
alike in what an embedding hardly sees."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipelines.stages.data.batches import batched
from pipelines.stages.data.near import Copy, words
from pipelines.stages.data.protocols import Embedder
from pipelines.stages.data.wording import says_the_same

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = 160
"""Words of a text; of a longer one the model does not read the end, so that it has no copies in other words."""
_BATCH = 256
_TILE = 8192


class Meaning:
    """Finds for each text the first that stays and means the same. Every new text is compared with every one that
    stays: 1.5 kB for each, and time that grows with the square."""

    def __init__(self, embedder: Embedder, threshold: float, wordings: Iterable["Wording"] | None = None) -> None:
        """``wordings`` tells of each text in turn what may be worded otherwise; all of it, where that is left out."""
        self._embedder, self._threshold, self._wordings = embedder, threshold, wordings
        self._kept: defaultdict[str, _Kept] = defaultdict(_Kept)
        self._read: dict[int, _Read] = {}
        self._staying: list[int] = []

    def ahead(self, texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """The texts as `copies` takes them, each batch embedded before its first is handed on."""
        wordings = None if self._wordings is None else iter(self._wordings)
        for batch in batched(enumerate(texts), _BATCH):
            self._embed([(n, next(wordings) if wordings else Wording("", (text[0],))) for n, text in batch])
            for _, text in batch:
                yield text
            for number in self._staying:
                mine = self._read[number]
                self._kept[mine.said.fixed].add(number, mine.said, mine.vectors)

    def copy(self, number: int) -> Copy | None:
        """What the numbered text of this batch is a copy of, or None; then it stays."""
        mine = self._read.get(number)
        if mine is None:
            return None
        for other, similarity in sorted(mine.near):
            there = self._read.get(other)
            said = there.said if there else self._kept[mine.said.fixed].texts[other]
            staying = there is None or other in self._staying
            if staying and all(map(says_the_same, mine.said.free, said.free)):
                return Copy("semantic", other, similarity)
        self._staying.append(number)
        return None

    def _embed(self, batch: Sequence[tuple[int, "Wording"]]) -> None:
        """Read a batch: vectors, and which earlier texts are near."""
        places = {text: place for place, text in enumerate(dict.fromkeys(t for _, said in batch for t in said.free))}
        vectors = self._embedder.embed(list(places))
        self._read, self._staying = {}, []
        together: defaultdict[str, list[int]] = defaultdict(list)
        for number, said in batch:
            if said.free and all(0 < len(words(text)) <= LONGEST for text in said.free):
                self._read[number] = _Read(said, vectors[[places[text] for text in said.free]], [])
                together[said.fixed].append(number)
        for fixed, numbers in together.items():
            self._compare(self._kept[fixed], numbers)

    def _compare(self, kept: "_Kept", numbers: list[int]) -> None:
        import numpy as np

        new = np.stack([self._read[number].vectors for number in numbers])
        for others, tile in [*kept.tiles(), (numbers, new)]:
            alike = np.einsum("nfd,mfd->fnm", new, tile, optimize=True).min(axis=0).round(4)
            for row, column in zip(*np.nonzero(alike >= self._threshold), strict=True):
                if others[column] < numbers[row]:
                    self._read[numbers[row]].near.append((others[column], float(alike[row, column])))


class Wording(NamedTuple):
    """Copies in meaning have ``fixed`` in common, and each of ``free`` in other words."""

    fixed: str
    free: tuple[str, ...]


class _Read(NamedTuple):
    """A text of the batch: its vectors [free texts, dimensions], and (number, similarity) of earlier texts near it."""

    said: Wording
    vectors: "NDArray[np.float32]"
    near: list[tuple[int, float]]


class _Kept:
    """The texts that stay and share what is fixed."""

    def __init__(self) -> None:
        self.texts: dict[int, Wording] = {}
        self._numbers: list[int] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._full: list[tuple[list[int], NDArray[np.float32]]] = []

    def add(self, number: int, said: Wording, vectors: "NDArray[np.float32]") -> None:
        self.texts[number] = said
        self._numbers.append(number)
        self._vectors.append(vectors)
        if len(self._numbers) == _TILE:
            self._full += self._last()
            self._numbers, self._vectors = [], []

    def tiles(self) -> list[tuple[list[int], "NDArray[np.float32]"]]:
        """(numbers, vectors [numbers, free texts, dimensions])."""
        return [*self._full, *self._last()]

    def _last(self) -> list[tuple[list[int], "NDArray[np.float32]"]]:
        import numpy as np

        return [(self._numbers, np.stack(self._vectors))] if self._numbers else []
