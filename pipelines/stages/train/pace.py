"""How fast a run goes and what it takes: no part of its result, since another machine gives other numbers."""

import resource
from pathlib import Path
from time import monotonic

from data_contracts.frozen import Frozen

_STATUS = Path("/proc/self/status")


class Pace(Frozen):
    """``tokens`` were learned from in this process so far, which went on after the step ``begun_at``; memory in 10**9
    bytes, the peaks until now."""

    begun_at: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    memory_gb: float | None = None
    device_memory_gb: float | None = None
    eta_seconds: float | None = None


class Meter:
    """Measures between the reports of a run; evaluations count for the time that is left, not for the speed."""

    def __init__(self) -> None:
        self._since = self._began = monotonic()
        self._first: int | None = None
        self._tokens = 0

    def begin(self, step: int) -> None:
        """Training begins, or goes on, after this step."""
        self._since = self._began = monotonic()
        self._first = step

    def after(self, step: int, steps: int, tokens: int | None) -> Pace:
        """At a report: of a training step with the tokens seen until then, of an evaluation without."""
        now = monotonic()
        known = {"begun_at": self._first, "memory_gb": peak_memory() / 1e9, "device_memory_gb": _device_memory()}
        if self._first is not None and step > self._first:
            known["eta_seconds"] = (now - self._began) / (step - self._first) * (steps - step)
        if tokens is not None:
            known |= {"tokens": tokens, "tokens_per_second": (tokens - self._tokens) / (now - self._since)}
            self._tokens = tokens
        self._since = now
        return Pace.model_validate(known)


def peak_memory() -> int:
    """Bytes that this process had in memory at most: of its own program, where the kernel tells (Linux)."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_memory() -> float | None:
    import torch

    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
