"""What evaluation needs of the outside world."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pydantic import JsonValue

from data_contracts.digests import Digest
from data_contracts.judging import JudgePolicy
from data_contracts.manifests import BaseManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import ItemScore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ModelServer(Protocol):
    """One served base with adapters named by digest. The base itself answers through an all-zero adapter, so that no
    request ever runs without one (stock vLLM may give such a request another's weights)."""

    def ensure_running(self, base: BaseManifest) -> None:
        """Start the server for this base unless it runs; wait until it is healthy."""
        ...

    def ensure_loaded(self, weights: Digest) -> str:
        """Verify an adapter tree (digest, base, rank limits) and load it; the name to put in ``model``."""
        ...

    def name_of(self, weights: Digest) -> str:
        """What an adapter is called in ``model``, loaded or not."""
        ...

    @property
    def residents(self) -> int:
        """How many adapters can be loaded at once, the base's own aside."""
        ...

    def slot_bytes(self) -> int:
        """Memory that a loaded adapter takes, whatever its rank. Raises `Unavailable` where no base is served yet."""
        ...

    def pin(self, adapters: Mapping[str, Digest | None]) -> None:
        """Which adapter of each product no other pushes out, ``None`` for none; its slot is kept before it is loaded.
        Products that are not named keep theirs. Raises `Refused` when no slot would be left for the others."""
        ...

    def unload(self, weights: Digest) -> None:
        """Free what the server holds of an adapter, after its running answers; nothing when it holds nothing."""
        ...

    def base_name(self) -> str:
        """The name under which the unadapted base answers."""
        ...

    def base(self) -> BaseManifest | None:
        """The base that is, or was last, asked for."""
        ...

    def loaded(self) -> list[str]: ...
    def url(self) -> str:
        """``http://127.0.0.1:PORT/v1``"""
        ...

    def setup(self) -> dict[str, JsonValue]:
        """What decides how fast it answers, beside its software: the kind of machine and the server's own settings.
        Nothing that names a host or a time."""
        ...


Question = dict[str, Any]
"""Body of a chat completion without ``model``: messages, template, tools, schema, decoding."""


class Hears(Protocol):
    """Takes an answer, and how sure the model was of it: the mean log-probability of the answer's tokens, each among
    those that it might write there; ``None`` where that is not told."""

    def __call__(self, key: Digest, text: str, confidence: float | None = None, /) -> None: ...


class ChatModel(Protocol):
    """A model that can be asked, behind a server or in this process."""

    def engine(self) -> str:
        """Name and version of what computes the answers."""
        ...

    def chat(self, questions: Mapping[Digest, Question], answered: Hears) -> None:
        """Hand on the text of every answer as it comes. Raises `Unavailable` when one question gets none."""
        ...


class Answerer(ChatModel, Protocol):
    """One whose likelihoods can be asked for too."""

    def lm(self) -> Any:
        """lm-eval's own model for it (``hf`` or ``local-completions``)."""
        ...


class Kept(NamedTuple):
    """A text, ``[text, confidence]`` of one (see `Hears`), or what lm-eval got for a request: ``[log-likelihood, is
    greedy]``, a number, a text."""

    answer: JsonValue
    engine: str


class Answers(Protocol):
    """What artifacts answered, by the digest of all that decides it. A cache: deleting costs nothing but asking again,
    and erasure deletes whatever a revoked artifact said."""

    def get(self, keys: Collection[Digest]) -> dict[Digest, Kept]: ...
    def put(self, artifact: Digest, answers: Mapping[Digest, Kept]) -> None:
        """Whole once this returns, in place of earlier answers under the same keys. Raises `Refused` for an artifact
        that was forgotten: an evaluation under way does not bring back what an erasure took."""
        ...

    def held(self, artifacts: Collection[Digest]) -> int:
        """How many answers of these artifacts are kept."""
        ...

    def forget(self, artifacts: Collection[Digest]) -> None:
        """Delete every answer of these artifacts, bytes included, and take none again. Safe to repeat."""
        ...


class Found(Protocol):
    """A personal datum or a secret in a text: where it lies and of which kind (``EMAIL_ADDRESS``, ``SECRET``, ...)."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def kind(self) -> str: ...


class PiiFinder(Protocol):
    @property
    def identity(self) -> str: ...
    def find(self, texts: Sequence[str]) -> Sequence[Sequence[Found]]: ...


class OffenceScorer(Protocol):
    @property
    def identity(self) -> str: ...
    def scores(self, texts: Sequence[str]) -> Sequence[float]:
        """Probability, from 0 to 1, that each text offends."""
        ...


class Detectors(Protocol):
    """What some metrics ask about an answer."""

    @property
    def pii(self) -> PiiFinder: ...
    @property
    def toxicity(self) -> OffenceScorer: ...
    @property
    def embedder(self) -> "Embeds": ...


class Keeping(Detectors, Protocol):
    """Where results and answers are kept, and what reads answers."""

    @property
    def store(self) -> ArtifactStore: ...
    @property
    def answers(self) -> Answers: ...
    @property
    def judge(self) -> "JudgeModel | None":
        """The model that judges answers, where the installation has one."""
        ...


class EvalParts(Keeping, Protocol):
    @property
    def server(self) -> ModelServer: ...


class Vouched(Protocol):
    """Of a judged metric: why its judge does not count, if so, and on how many items it gave no verdict."""

    @property
    def untrusted(self) -> str: ...
    @property
    def failed(self) -> int: ...


class Scored(Protocol):
    """What one artifact scored on one suite: an `EvalResult`, or the rows of a plain file."""

    @property
    def artifact(self) -> str: ...
    @property
    def items(self) -> Sequence[ItemScore]: ...
    @property
    def judged(self) -> Mapping[str, Vouched]: ...


class Answer(Protocol):
    @property
    def text(self) -> str: ...


class JudgeEndpoint(Protocol):
    """Any OpenAI-compatible server. ``url`` ends in ``/v1``; ``timeout`` in seconds a try, ``concurrency`` at once."""

    @property
    def url(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def timeout(self) -> float: ...
    @property
    def concurrency(self) -> int: ...
    def ask(
        self, bodies: Mapping[Digest, dict[str, Any]], answered: Callable[[Digest, Answer], None]
    ) -> Mapping[Digest, str]:
        """Ask each body; ``answered`` gets each answer when it comes. Returns those that got none, and why. Raises
        `Unavailable` where the server cannot be reached, or refuses model or key."""
        ...


class JudgeModel(NamedTuple):
    """A model that judges, under the name that its server knows it by, and what it is held to before it counts.
    ``template``: chat template to send along, if the server has none."""

    endpoint: JudgeEndpoint
    model: str
    template: str
    policy: JudgePolicy


class Embeds(Protocol):
    @property
    def identity(self) -> str: ...
    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """[texts, dimensions], each row of length 1."""
        ...
