"""Start the trainer as a child process, from a terminal, CI or a test."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from data_contracts.errors import Refused, Unavailable
from pipelines.stages.train.job import STOPPED, RunFiles

ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1


class SubprocessLauncher:
    """The trainer leads a process group of its own and writes to this terminal. Ending the caller ends it: it is told
    to stop, writes a checkpoint, and is killed when that takes longer than ``patience`` seconds. When the caller itself
    is killed, the kernel (Linux) tells the trainer to stop, so that no orphan trains on.

    ``environment`` is added to the caller's.
    """

    def __init__(
        self, mlflow_uri: str | None = None, patience: float = 60, environment: Mapping[str, str] | None = None
    ) -> None:
        self.mlflow_uri = mlflow_uri
        self.patience = patience
        self.environment = environment or {}

    def launch(self, job_file: Path, run_dir: Path) -> None:
        """Run to the end. Raises `Refused` with the trainer's reason when it failed, `Unavailable` when it was stopped
        or killed: run again, it goes on from its last checkpoint."""
        mlflow = {"MLFLOW_TRACKING_URI": self.mlflow_uri} if self.mlflow_uri else {}
        trainer = subprocess.Popen(
            [sys.executable, "-m", "pipelines.stages.train.entry", str(job_file)],
            cwd=ROOT,
            env={**os.environ, **mlflow, **self.environment},
            process_group=0,
            preexec_fn=_stop_with_parent,
        )
        try:
            code = trainer.wait()
        except BaseException:
            self._end(trainer)
            raise
        failed = RunFiles(run_dir).failed
        reason = failed.read_text() if code != 0 and failed.exists() else ""
        if code == STOPPED or (code != 0 and not reason):
            how = "was stopped" if code == STOPPED else f"ended with code {code} and no reason, as when it is killed"
            raise Unavailable(
                f"training {how}; run the step again to go on from its checkpoint in {run_dir}{reason and ': '}{reason}"
            )
        if code != 0:
            raise Refused(f"training ended with code {code}: {reason} (run directory {run_dir})")

    def _end(self, trainer: "subprocess.Popen[bytes]") -> None:
        os.killpg(trainer.pid, signal.SIGTERM)
        try:
            trainer.wait(timeout=self.patience)
        except subprocess.TimeoutExpired:
            os.killpg(trainer.pid, signal.SIGKILL)
            trainer.wait()


def _stop_with_parent() -> None:
    """In the child, before it becomes the trainer; elsewhere than on Linux only its lock keeps a second one out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
