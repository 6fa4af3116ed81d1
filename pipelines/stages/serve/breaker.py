"""A breaker for each adapter: one that keeps failing is not asked for a while, so that no request waits for it."""

from collections.abc import Callable
from datetime import datetime, timedelta

from data_contracts.digests import Digest
from data_contracts.errors import AssayError

FAILURES = 3
"""In a row: then the breaker opens."""
REST = timedelta(seconds=30)


class AdapterFailed(Exception):
    """The model server runs, and this adapter does not answer; ``error`` is what a client is told where nobody else
    may. ``suspect``: it may be the server's fault, unless another one answers."""

    def __init__(self, error: AssayError, suspect: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.suspect = suspect


class Breakers:
    """Open after `FAILURES` in a row. After `REST` one request tries again, and one more each `REST` until an answer
    closes it."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._failures: dict[Digest, int] = {}
        self._open: dict[Digest, tuple[datetime, AssayError]] = {}

    def check(self, adapter: Digest | None) -> None:
        """Raises `AdapterFailed`, with the last error, while the adapter rests. The base has no breaker."""
        if adapter is None or adapter not in self._open:
            return
        until, error = self._open[adapter]
        if self._now() < until:
            raise AdapterFailed(error)
        self._open[adapter] = self._now() + REST, error

    def failed(self, adapter: Digest | None, error: AssayError) -> None:
        if adapter is None:
            return
        self._failures[adapter] = self._failures.get(adapter, 0) + 1
        if self._failures[adapter] >= FAILURES:
            self._open[adapter] = self._now() + REST, error

    def answered(self, adapter: Digest | None) -> None:
        if adapter is not None:
            self._failures.pop(adapter, None)
            self._open.pop(adapter, None)

    def resting(self) -> list[Digest]:
        """Adapters that are not asked now."""
        return sorted(adapter for adapter, (until, _) in self._open.items() if self._now() < until)
