"""What the data plane needs of the outside world. `resources` implements each; tests hand in fakes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from data_contracts.digests import Digest
from data_contracts.ledger import Expiring, LedgerEntry
from pipelines.stages.data.item import Item, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Batch = TypeVar("Batch")
Result = TypeVar("Result")


ROWS_LOCK = "rows"
"""Held while rows are written anywhere: a writer looks for erased subjects under it, so that erasure, which destroys
the key first and then takes this lock, leaves no row behind."""


class Held(NamedTuple):
    """Roots of the data sets and action keys of the quarantines that name rows; how many rows still have content."""

    data_sets: tuple[Digest, ...]
    quarantines: tuple[Digest, ...]
    content: int


class Sealed(NamedTuple):
    """A data set as it was written: the Merkle root of its rows' names; digests of its rows with their names and terms
    in their order, and of what the ledger says of them."""

    root: Digest
    content: Digest
    ledger: Digest


class Spool(Protocol):
    """Collects items, with a note, and gives them back by an order, as often as is wished. It holds few in memory."""

    def add(self, item: Item, order: str, note: str = "") -> None: ...
    def __iter__(self) -> Iterator[tuple[Item, str]]: ...


class DatasetStore(Protocol):
    """Rows apart from their names: content shards may be rewritten by erasure, names never."""

    def spool(self) -> AbstractContextManager[Spool]: ...
    def write(self, items: Iterable[Item]) -> Sealed:
        """Store rows in this order."""
        ...

    def read(self, root: Digest) -> Iterator[Item]:
        """The rows, in the order in which they were written."""
        ...

    def content(self, root: Digest) -> Digest:
        """The digest of the rows as they lie there now."""
        ...

    def names(self, root: Digest) -> Sequence[tuple[Digest, str]]: ...
    def holds(self, root: Digest, rows: Collection[Digest]) -> bool:
        """Whether the data set names one of these rows; it may have a million."""
        ...

    def quarantine(self, action_key: Digest, dropped: Iterable[tuple[Item, str]]) -> Digest:
        """Keep (item, reason) of what a step dropped, under the step's action key; the Merkle root of their names."""
        ...

    def read_quarantine(self, action_key: Digest) -> Iterator[tuple[Digest, str, str, Row]]: ...
    def held(self, subjects: Iterable[str]) -> Held:
        """Where rows of these subjects are named, and how many of them still have content."""
        ...

    def erase(self, subjects: Iterable[str]) -> None:
        """Take the content of these subjects' rows out of every file, whole or left by a crash. Names stay. Nobody may
        write meanwhile: writers hold the lock `ROWS_LOCK`."""
        ...


class Keyring(Protocol):
    """Subjects' keys. Deleting one makes its rows' names meaningless for good."""

    def subject(self, identifier: str) -> str:
        """Pseudonym of an identifier (keyed hash)."""
        ...

    def key(self, subject: str) -> bytes: ...
    def keys(self, subjects: Iterable[str]) -> Mapping[str, bytes]:
        """Keys of all these subjects, made where there is none yet; raises `Refused` for an erased subject."""
        ...

    def known(self, subjects: Iterable[str]) -> Mapping[str, bytes]:
        """Keys of those subjects that have one; makes none."""
        ...

    def erased(self, subjects: Iterable[str]) -> set[str]:
        """Those subjects whose key was destroyed."""
        ...

    def has(self, subject: str) -> bool: ...
    def delete(self, subject: str) -> None:
        """Destroy the key for good; the subject stays known as erased. Safe to repeat."""
        ...


class Ledger(Protocol):
    """Where rows come from. The first entry of a row stands; parents that a later run finds are added to it."""

    def record(self, entries: Iterable[LedgerEntry]) -> int:
        """Enter rows; how many of them were not there before."""
        ...

    def entry(self, row: Digest) -> LedgerEntry | None: ...
    def entries(self, rows: Iterable[Digest]) -> Mapping[Digest, LedgerEntry]: ...
    def missing(self, rows: Iterable[Digest]) -> list[Digest]: ...
    def ancestors(self, row: Digest) -> list[Digest]:
        """What a row was made from, back to the records, nearest first."""
        ...

    def descendants(self, row: Digest) -> list[Digest]:
        """What was made from a row, nearest first."""
        ...

    def rows_of(self, subject: str) -> list[Digest]:
        """Every row about a subject, by the subject's pseudonym."""
        ...

    def expiring(self, before: date) -> list[Expiring]:
        """What may no longer be learned from on that day, counted by source, soonest first."""
        ...

    def record_set(self, root: Digest, manifest: Digest) -> None:
        """Note that a data set's manifest names this root."""
        ...

    def sets(self) -> Sequence[tuple[Digest, Digest]]:
        """(root, manifest) of every data set."""
        ...


class Finding(NamedTuple):
    """A personal datum or a secret in a text: where it lies, of which kind (``EMAIL_ADDRESS``, ``SECRET``, ...), and
    how sure its recogniser is, in (0, 1]."""

    start: int
    end: int
    kind: str
    score: float = 1.0


class PiiAnalyzer(Protocol):
    """Finds personal data and secrets, without a network."""

    @property
    def identity(self) -> str:
        """Names model and recognisers: another one makes another data set."""
        ...

    def find(self, texts: Sequence[str], least: Mapping[str, float] | None = None) -> list[list[Finding]]:
        """Findings of each text, in order and without overlaps; with ``least``, only of those kinds, each from its
        score on."""
        ...


class BatchEngine(Protocol):
    """Row work in batches, on one process or many; the results do not depend on which."""

    def map(self, work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        """``work`` of each batch, in order, reading only a few batches ahead. ``work`` is picklable and has no effect
        but its result. Raises `Unavailable` when a worker dies and is not replaced, and what ``work`` raises."""
        ...


class ToxicityScorer(Protocol):
    """How offensive a text is, without a network."""

    @property
    def identity(self) -> str:
        """Names the classifier: another one makes another data set."""
        ...

    @property
    def known_biases(self) -> str:
        """Whom and what it is known to judge wrongly: the mixture's manifest and the data card repeat it."""
        ...

    def scores(self, texts: Sequence[str]) -> list[float]:
        """For each text a number from 0 (harmless) to 1 (offensive)."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors, near ones for those of like meaning, without a network."""

    @property
    def identity(self) -> str:
        """Names the model: another one makes another data set."""
        ...

    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """[texts, dimensions], each row of length 1."""
        ...


class LanguageDetector(Protocol):
    """Tells the language of a text, without a network."""

    @property
    def identity(self) -> str:
        """Names the model."""
        ...

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes of those that can be told."""
        ...

    def language(self, text: str) -> str | None:
        """The language that the text is more likely in than not; nothing when that cannot be told."""
        ...
