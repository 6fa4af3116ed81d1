"""What the stages need of the outside world. `resources` implements each; tests hand in fakes."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from pydantic import JsonValue

from data_contracts.chain import AuditRecord, EventKind
from data_contracts.digests import Digest
from data_contracts.ledger import Expiring, LedgerEntry
from data_contracts.manifests import SignedHead
from data_contracts.rollbacks import Saw
from data_contracts.runs import Outcome, RunRecord
from data_contracts.store import ArtifactStore
from data_contracts.traces import Trace
from evals.protocols import Answers, JudgeModel, ModelServer
from pipelines.stages.data.item import Item, Row
from pipelines.stages.train.base import BaseSource

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


class AuditLog(Protocol):
    def append(self, event: EventKind, product: str, body: Mapping[str, JsonValue], actor: str) -> AuditRecord: ...
    def records(self) -> list[AuditRecord]: ...
    def stamp(self) -> tuple[int, int]:
        """Another one after each record; cheap, for those who follow the log."""
        ...

    def signed_head(self) -> SignedHead:
        """The newest head with the log key's signature."""
        ...

    def signer_line(self) -> str:
        """The allowed-signers line with the log's first key; the key is made when there is no log yet."""
        ...


class Locks(Protocol):
    """One writer: a named lock held across processes; released by the kernel when its holder dies."""

    def hold(self, name: str) -> AbstractContextManager[None]: ...
    def held(self, name: str) -> bool:
        """Whether somebody holds it at this moment."""
        ...


class Signatures(Protocol):
    """SSH signatures against an allowed-signers file that lies outside the store."""

    def principals(self, namespace: str, message: bytes, signature: str) -> list[str]:
        """Principals allowed to make this valid signature in this namespace; empty when there is none."""
        ...

    def made_by(self, public: str, namespace: str, message: bytes, signature: str) -> bool:
        """Whether this key (``ssh-ed25519 AAAA...``), allowed or not, made this signature."""
        ...

    def signer(self, signature: str) -> tuple[str, str]:
        """(public key, namespace) that a signature names, true or not; raises `Refused` when it is none."""
        ...


class Registry(Protocol):
    """The model registry: versions hold artifacts, aliases are projections of the audit log."""

    def register(self, product: str, release: Digest, files: Mapping[str, Path], tags: Mapping[str, str]) -> str: ...
    def alias(self, product: str, name: str) -> Digest | None: ...
    def set_alias(self, product: str, name: str, release: Digest | None) -> None: ...
    def states(self, product: str) -> Mapping[Digest, str | None]:
        """The tag ``assay.state`` of every version; ``None`` where there is none yet."""
        ...

    def set_state(self, product: str, release: Digest, state: str) -> None: ...


class TreeSigner(Protocol):
    """Signs folders with a key of this installation; whoever has the public key can check them, offline."""

    def public_key(self) -> str:
        """PEM of the key that signs."""
        ...

    def sign(self, folder: Path) -> bytes:
        """A signature over the name and the bytes of every file."""
        ...

    def check(self, folder: Path, signature: bytes, public_key: str) -> None:
        """Raises `Refused` unless the key made this signature over this very folder, naming what differs."""
        ...


class Notifier(Protocol):
    """Tells people outside. Addresses hold secrets: they are spoken of by labels."""

    @property
    def addresses(self) -> Sequence[str]:
        """Labels of the configured addresses."""
        ...

    def send(self, address: str, title: str, text: str) -> None:
        """Returns once the address took it. Raises `AssayError` otherwise."""
        ...


class TraceStore(Protocol):
    """What the gateway answered: metadata only, no text."""

    def add(self, trace: Trace) -> None: ...
    def get(self, trace_id: str) -> Trace | None: ...
    def recent(self, product: str, limit: int) -> list[Trace]: ...
    def since(self, product: str, time: datetime) -> list[Trace]: ...
    def saw(self, product: str, release: Digest, since: datetime) -> list[Saw]: ...
    def flush(self) -> bool:
        """Wait until every added trace can be read back."""
        ...


class Runs(Protocol):
    """Records of training runs, outside manifests: they hold time and host."""

    def put(self, record: RunRecord) -> None:
        """Keep a record, in place of an earlier one of the same run."""
        ...

    def get(self, run: str) -> list[RunRecord]:
        """The runs whose name begins so."""
        ...

    def find(
        self,
        product: str = "",
        outcomes: Collection[Outcome] = (),
        since: datetime | None = None,
        action_key: Digest | None = None,
    ) -> list[RunRecord]:
        """Those that meet every condition, newest first."""
        ...


class Parts(Protocol):
    """All adapters of one installation; `pipelines.wiring.Line` is the real one."""

    @property
    def home(self) -> Path: ...
    @property
    def store(self) -> ArtifactStore: ...
    @property
    def checkpoints(self) -> str:
        """fsspec URL of the checkpoints of unfinished training runs; empty: in their run directories."""
        ...

    @property
    def datasets(self) -> DatasetStore: ...
    @property
    def keyring(self) -> Keyring: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def engine(self) -> BatchEngine: ...
    @property
    def pii(self) -> PiiAnalyzer: ...
    @property
    def toxicity(self) -> ToxicityScorer: ...
    @property
    def language(self) -> LanguageDetector: ...
    @property
    def embedder(self) -> Embedder: ...
    @property
    def bases(self) -> BaseSource: ...
    @property
    def log(self) -> AuditLog: ...
    @property
    def locks(self) -> Locks: ...
    @property
    def signatures(self) -> Signatures: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def signer(self) -> TreeSigner: ...
    @property
    def notifier(self) -> Notifier: ...
    @property
    def server(self) -> ModelServer: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def judge(self) -> JudgeModel | None: ...
    @property
    def traces(self) -> TraceStore: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def hour_cost(self) -> float | None:
        """What an hour of the machine that trains costs."""
        ...
