"""What evaluation needs of the outside world."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest
from data_contracts.store import ArtifactStore

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


class EvalParts(Protocol):
    @property
    def store(self) -> ArtifactStore: ...
    @property
    def server(self) -> ModelServer: ...


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


class Embeds(Protocol):
    def embed(self, texts: Sequence[str]) -> "NDArray[np.float32]":
        """[texts, dimensions], each row of length 1."""
        ...
