"""The record of a training run: time, host and outcome, which a manifest must not hold. It holds no row text."""

from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

Outcome = Literal["running", "done", "failed", "stopped", "killed"]


class RunRecord(Frozen):
    """One start of the trainer, whatever became of it; runs that go on from each other share the ``action_key``.

    ``error`` is the kind of exception and ``guard`` the guard that ended it; ``trips`` are all the guards that tripped,
    as the trainer noted them, also those after which it went on. It began after the step ``begun_at``; ``step`` is the
    last one that was reported, and ``rows`` and ``tokens`` were learned from between them, at ``tokens_per_second``
    (median of its last steps). ``exit_code`` is negative for a signal. ``peak_memory_gb`` is resident memory,
    ``device_memory_gb`` that of the GPU, both in 10**9 bytes. ``commit`` is the project's, of a checkout. ``cost`` is
    in the currency of the configured rate.
    """

    run: str
    product: str
    stage: str
    outcome: Outcome
    reason: str = ""
    error: str = ""
    guard: str = ""
    trips: tuple[dict[str, JsonValue], ...] = ()
    begun_at: int = 0
    step: int = 0
    steps: int
    rows_a_step: int
    rows: int = 0
    exit_code: int | None = None
    action_key: Digest
    recipe: Digest
    base: Digest
    data: Digest
    hyperparameters: dict[str, JsonValue]
    metrics: dict[str, float] = {}
    environment: dict[str, str] = {}
    commit: str
    host: str
    started: datetime
    ended: datetime | None = None
    seconds: float = 0.0
    tokens: int = 0
    tokens_per_second: float | None = None
    peak_memory_gb: float | None = None
    device_memory_gb: float | None = None
    gpu_seconds: float = 0.0
    cost: float | None = None
    log_tail: str = ""

    @property
    def device(self) -> str:
        return self.environment.get("device", "")

    def mentions(self, text: str) -> bool:
        """Whether it says this anywhere, in whatever case."""
        return text.casefold() in "\n".join(_words(self.payload())).casefold()


def _words(value: JsonValue) -> list[str]:
    """Keys and values as lines of ``key value``."""
    if isinstance(value, dict):
        return [f"{key} {line}" for key, each in value.items() for line in _words(each)]
    return [line for each in value for line in _words(each)] if isinstance(value, list) else [str(value)]
