"""How a training process is started."""

import ctypes
import signal
import sys
from pathlib import Path
from typing import Protocol

from data_contracts.errors import Refused, Unavailable
from pipelines.stages.train.job import STOPPED

GRACE_S = 60
"""Seconds that a trainer which was told to stop has for its checkpoint before it is killed."""
_PR_SET_PDEATHSIG = 1


class Ended(Refused):
    """The trainer failed, with a reason. ``code`` is its exit code."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Killed(Unavailable):
    """The trainer ended without result and reason. ``code``: its exit code, minus the number of a signal."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Stopped(Unavailable):
    """The training process was told to stop; run again, it goes on from its last checkpoint."""

    code = STOPPED


class TrainerLauncher(Protocol):
    def launch(self, job_file: Path, run_dir: Path) -> None:
        """Run ``python -m pipelines.stages.train.entry JOB_FILE`` to its end, where the run directory is the same
        files.

        Raises `Unavailable` when it was stopped or lost, and the same call goes on from its checkpoint; `Refused` with
        the trainer's reason when it failed.
        """
        ...


def stop_with_parent() -> None:
    """The kernel tells this process to stop when the thread that started it is gone. Elsewhere than on Linux only the
    run's lock keeps a second trainer out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
