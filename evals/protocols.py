"""What evaluation needs of the outside world."""

from typing import Protocol

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest
from data_contracts.store import ArtifactStore


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
