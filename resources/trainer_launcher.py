"""Start the trainer: here as a child process, or where ``ASSAY_LAUNCHER`` says."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from data_contracts.errors import BadInput
from pipelines.stages.train.job import STOPPED, RunFiles
from pipelines.stages.train.launcher import GRACE_S, Ended, Killed, Stopped, TrainerLauncher, stop_with_parent

ROOT = Path(__file__).parents[1]


def open_launcher(name: str, mlflow_uri: str, environment: Mapping[str, str]) -> TrainerLauncher:
    """The launcher of the setting ``ASSAY_LAUNCHER``: ``subprocess``, ``ray``, ``ray:gpu`` or ``k8s:FILE``."""
    kind, _, rest = name.partition(":")
    if name == "subprocess":
        return SubprocessLauncher(mlflow_uri, environment=environment)
    environment = {"MLFLOW_TRACKING_URI": mlflow_uri, **environment}
    if name in ("ray", "ray:gpu"):
        from resources.ray_launcher import RayLauncher

        return RayLauncher(environment, gpu=bool(rest))
    if kind == "k8s" and rest:
        from resources.kubernetes_job import load_place
        from resources.kubernetes_launcher import KubernetesLauncher

        return KubernetesLauncher(load_place(Path(rest)), environment)
    raise BadInput(
        f"ASSAY_LAUNCHER is {name!r}: give subprocess, ray, ray:gpu (a GPU for each process) or k8s:FILE "
        "(docs/launchers.md)"
    )


class SubprocessLauncher:
    """The trainer leads a process group of its own and writes to this terminal. Ending the caller ends it: it is told
    to stop, writes a checkpoint, and is killed when that takes longer than ``patience`` seconds. When the caller itself
    is killed, the kernel (Linux) tells the trainer to stop, so that no orphan trains on.

    ``environment`` is added to the caller's.
    """

    def __init__(
        self, mlflow_uri: str | None = None, patience: float = GRACE_S, environment: Mapping[str, str] | None = None
    ) -> None:
        self.mlflow_uri = mlflow_uri
        self.patience = patience
        self.environment = environment or {}

    def launch(self, job_file: Path, run_dir: Path) -> None:
        """Run to the end. Raises `Ended` with the trainer's reason when it failed, `Stopped` when it was told to stop,
        `Killed` when it left no reason: after these two, run again, it goes on from its last checkpoint."""
        mlflow = {"MLFLOW_TRACKING_URI": self.mlflow_uri} if self.mlflow_uri else {}
        trainer = subprocess.Popen(
            [sys.executable, "-m", "pipelines.stages.train.entry", str(job_file)],
            cwd=ROOT,
            env={**os.environ, **mlflow, **self.environment},
            process_group=0,
            preexec_fn=stop_with_parent,
        )
        try:
            code = trainer.wait()
        except BaseException:
            self._end(trainer)
            raise
        judge(code, run_dir)

    def _end(self, trainer: "subprocess.Popen[bytes]") -> None:
        os.killpg(trainer.pid, signal.SIGTERM)
        try:
            trainer.wait(timeout=self.patience)
        except subprocess.TimeoutExpired:
            os.killpg(trainer.pid, signal.SIGKILL)
            trainer.wait()


def judge(code: int, run_dir: Path) -> None:
    """What an exit code of the trainer means. Raises `Stopped` when it was stopped, `Killed` when it left no
    reason, `Ended` when it failed."""
    failed = RunFiles(run_dir).failed
    reason = failed.read_text() if code != 0 and failed.exists() else ""
    again = f"run the step again to go on from its checkpoint in {run_dir}"
    if code == STOPPED:
        raise Stopped(f"training was stopped; {again}{reason and ': '}{reason}")
    if code != 0 and not reason:
        raise Killed(f"training ended with code {code} and no reason, as when it is killed; {again}", code)
    if code != 0:
        raise Ended(f"training ended with code {code}: {reason} (run directory {run_dir})", code)
