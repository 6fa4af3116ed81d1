"""What the stages need of the outside world. `resources` implements each; tests hand in fakes."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pydantic import JsonValue

from data_contracts.chain import AuditRecord, EventKind
from data_contracts.digests import Digest
from data_contracts.feedback import Exchange, Feedback, Sealed
from data_contracts.manifests import ExportManifest, SignedHead
from data_contracts.rollbacks import Saw
from data_contracts.runs import Outcome, RunRecord
from data_contracts.store import ArtifactStore
from data_contracts.traces import Position, Residence, SealedWindow, ShadowTrace, Trace, TraceCounts, Usage
from evals.protocols import Answers, JudgeModel, ModelServer
from pipelines.recipes.product import KeptJudge
from pipelines.stages.data.protocols import (
    BatchEngine,
    DatasetStore,
    Embedder,
    Keyring,
    LanguageDetector,
    Ledger,
    PiiAnalyzer,
    ToxicityScorer,
)
from pipelines.stages.train.base import BaseSource

if TYPE_CHECKING:
    pass


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


class TenantKeys(Protocol):
    """A key a tenant, with which the store seals its weights."""

    def recipient(self, tenant: str) -> str:
        """The public key; made when it is first needed. Raises `Shredded`."""
        ...

    def public(self, tenant: str) -> str | None:
        """The public key; ``None`` where there is none, or it was destroyed. Makes none."""
        ...

    def seal(self, tenant: str, source: BinaryIO, target: BinaryIO) -> None:
        """Write ``source`` so that only this tenant's key opens it. Raises `Shredded`."""
        ...

    def unseal(self, tenant: str, source: BinaryIO, target: BinaryIO) -> None:
        """Raises `Tampered` for what this tenant's key did not seal as it is, `Missing` where there is no key."""
        ...

    def is_shredded(self, tenant: str) -> bool:
        """Its key was destroyed, and there is no other one yet."""
        ...

    def destroy(self, tenant: str) -> None:
        """For good: the tenant gets no other key until `renew`. Safe to repeat."""
        ...

    def renew(self, tenant: str) -> None:
        """Let a tenant have a new key after its own was destroyed. Safe to repeat."""
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
    """What the gateway answered: metadata only, no text. What is added can be read back within about a second, or when
    the store is there again; each trace counts once, however often it is delivered."""

    def resume(self) -> None:
        """Deliver what an earlier process left. Who adds need not ask for it."""
        ...

    def add(self, trace: Trace) -> None:
        """Returns at once, store or no store, and never raises for it."""
        ...

    def close(self) -> None:
        """Stop delivering; what the store has not got by then is kept for the next process."""
        ...

    def counts(self) -> TraceCounts: ...
    def get(self, trace_id: str) -> Trace | None: ...
    def recent(self, product: str, limit: int) -> list[Trace]: ...
    def since(self, product: str, time: datetime) -> list[Trace]: ...
    def saw(self, product: str, release: Digest, since: datetime) -> list[Saw]: ...
    def spent_before(self, tenant: str, day: date) -> tuple[int, int]:
        """Tokens of prompts and answers together, of this day and of its month (UTC), that were counted before this
        process took its first trace. Known whether or not the store can be reached."""
        ...

    def answered(self, product: str, release: Digest) -> int:
        """How many kept traces this release has."""
        ...

    def whole_answers(
        self, product: str, release: Digest, after: Position | None, until: datetime, limit: int
    ) -> list[Trace]:
        """The next ones with status 200, in the order of their positions, up to a time."""
        ...

    def whole_between(self, product: str, release: Digest, after: Position | None, until: Position) -> int:
        """How many with status 200 are kept after one position, up to another."""
        ...

    def failures(self, product: str, release: Digest, after: datetime, until: datetime) -> list[datetime]:
        """When requests ended that this release was to answer, and did not, after one time and up to another."""
        ...

    def seal(self, release: Digest, shape: Digest, windows: Sequence[SealedWindow]) -> None:
        """Keep windows of one shape for good; what is kept of a number already stays as it is."""
        ...

    def sealed(self, release: Digest, shape: Digest, newest: int) -> list[SealedWindow]:
        """The first window, and so many of the newest, by number."""
        ...

    def products(self) -> list[str]:
        """Those with any traces."""
        ...

    def older(self, product: str, traces: datetime, shadows: datetime) -> tuple[int, int]:
        """How many traces of answers, and of shadows, ended before these times."""
        ...

    def delete(self, product: str, traces: datetime, shadows: datetime) -> None:
        """Take those away."""
        ...

    def usage(self, since: datetime | None, until: datetime | None) -> list[Usage]:
        """By tenant and product, of requests that ended at ``since`` or later, and before ``until``; of adapters by
        when their residence was written."""
        ...

    def add_residence(self, residence: Residence) -> None: ...

    def add_shadow(self, shadow: ShadowTrace) -> None: ...
    def shadows(self, product: str, since: datetime) -> list[ShadowTrace]:
        """Those that ended then or later, the oldest first. No other method tells of them."""
        ...

    def flush(self, seconds: float = 30) -> bool:
        """Wait so long at most until every added trace can be read back. Whether they all can."""
        ...


class FeedbackStore(Protocol):
    """What people said of answers, and a sample of answers in scrubbed words. Each counts once, however often it is
    delivered; both can be read back within about a second after they were taken, or when the store is there again."""

    def resume(self) -> None:
        """Deliver what an earlier process left. Who adds need not ask for it."""
        ...

    def add(self, feedback: Feedback) -> None:
        """Returns at once, store or no store."""
        ...

    def add_exchange(self, exchange: Exchange) -> None:
        """The same. Its text is scrubbed already."""
        ...

    def add_sealed(self, sealed: Sealed) -> bool:
        """The same, for what is not scrubbed yet. Whether it is taken: not where the disk has no room."""
        ...

    def sealed(self, after: Sealed | None, limit: int) -> list[Sealed]:
        """The next ones that wait, the oldest first."""
        ...

    def settle(self, sealed: Sealed, kept: Exchange | Feedback | None) -> None:
        """It waits no longer: what was made of it is kept in its place. All or nothing."""
        ...

    def exchange(self, trace_id: str) -> Exchange | None: ...
    def exchanges(self, product: str, after: Position | None, until: datetime, limit: int) -> list[Exchange]:
        """The next ones in the order of their positions, up to a time."""
        ...

    def of_trace(self, trace_id: str) -> list[Feedback]:
        """The oldest first."""
        ...

    def feedback(self, product: str, since: datetime, until: datetime) -> list[Feedback]:
        """What was said at ``since`` or later, and before ``until``, the oldest first."""
        ...

    def corrected(self, product: str, since: datetime, until: datetime) -> int:
        """Of how many answers somebody said in that time what they should have been."""
        ...

    def products(self) -> list[str]:
        """Those with any exchanges or feedback."""
        ...

    def older(self, product: str, before: datetime) -> tuple[int, int]:
        """How many exchanges and how much feedback are from before this time."""
        ...

    def delete(self, product: str, before: datetime) -> tuple[int, int]:
        """Take those away; how many that was."""
        ...

    def held(self, subjects: Collection[str]) -> int:
        """How many exchanges with these people, and how much feedback by them or of those exchanges."""
        ...

    def forget(self, subjects: Collection[str]) -> None:
        """Take those away, so that no file of the store holds their text."""
        ...

    def flush(self, seconds: float = 30) -> bool:
        """Wait so long at most until all that was added can be read back. Whether it all can."""
        ...

    def close(self) -> None:
        """Stop delivering; what the store has not got by then is kept for the next process."""
        ...


class Moderator(Protocol):
    """Tells what a text is flagged for."""

    async def flagged(self, text: str, seconds: float) -> list[str]:
        """Categories; none where nothing is wrong. Raises `Unavailable`, after so many seconds at most."""
        ...

    async def close(self) -> None: ...


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


class MergedReplica(Protocol):
    """A model server for the merged weights of one release."""

    def serve(self, export: ExportManifest) -> None:
        """Verify the weights and serve them in place of others; returns when they answer. Raises `Refused`, `Tampered`,
        `Missing`, `Shredded` or `Unavailable`."""
        ...

    def serves(self, export: ExportManifest) -> bool:
        """Whether it answers with these now."""
        ...

    def running(self) -> bool: ...
    def stop(self) -> None:
        """Safe to repeat."""
        ...

    def export_of(self, release: Digest) -> tuple[Digest, str] | None:
        """The export that can be asked for this release, and the name to ask for; cheap, and it may be down."""
        ...

    def held(self) -> tuple[Digest, int] | None:
        """The release whose weights are there, and the bytes that their server takes."""
        ...

    def url(self) -> str: ...


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
    def tenant_keys(self) -> TenantKeys: ...
    @property
    def notifier(self) -> Notifier: ...
    @property
    def server(self) -> ModelServer: ...
    @property
    def merged(self) -> MergedReplica: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def judge(self) -> JudgeModel | None: ...
    def judge_of(self, named: KeptJudge) -> JudgeModel:
        """The judge that a product names for its live answers. Raises `BadInput`."""
        ...

    @property
    def traces(self) -> TraceStore: ...
    @property
    def moderator(self) -> Moderator | None: ...
    @property
    def feedback(self) -> FeedbackStore: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def hour_cost(self) -> float | None:
        """What an hour of the machine that trains costs."""
        ...
