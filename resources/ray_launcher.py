"""Run the trainer on a machine of a Ray cluster; when that machine or Ray's worker is lost, on another one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from data_contracts.digests import Digest
from data_contracts.errors import Unavailable
from pipelines.stages.train.job import RunFiles, TrainJob
from pipelines.stages.train.launcher import GRACE_S, stop_with_parent
from resources.ray_cluster import check_environment, connect, this_environment
from resources.trainer_launcher import ROOT, judge

_TRIES = 3


class RayLauncher:
    """The run directory lies on a disk that all machines of the cluster share, at the same path. With ``gpu`` each
    process of the recipe has one. ``environment`` is added to that of Ray's workers."""

    def __init__(self, environment: Mapping[str, str], gpu: bool) -> None:
        self.environment = dict(environment)
        self.gpu = gpu

    def launch(self, job_file: Path, run_dir: Path) -> None:
        """See `TrainerLauncher`. A lost trainer starts again, and goes on from its checkpoint, three times at most."""
        connect(None, "ASSAY_LAUNCHER=subprocess")
        from ray.exceptions import RayError, RayTaskError

        parallel = TrainJob.model_validate_json(job_file.read_bytes()).recipe.parallel
        processes = 1 if parallel is None else parallel.processes
        for _ in range(_TRIES):
            try:
                judge(self._run(job_file, run_dir, processes), run_dir)
                return
            except RayTaskError as error:
                raise error.cause from error  # what the task raised
            except RayError as error:
                print(f"Ray lost the trainer ({type(error).__name__})", flush=True)
        raise Unavailable(
            f"Ray lost the trainer {_TRIES} times; look after the cluster and run the step again to go on from the "
            f"checkpoint in {run_dir}"
        )

    def _run(self, job_file: Path, run_dir: Path, processes: int) -> int:
        """Print its log as it comes; its exit code."""
        import ray

        needs = {"num_cpus": processes, "num_gpus": processes if self.gpu else 0}
        print(f"asking Ray for {processes} processors" + (f" and {processes} GPUs" if self.gpu else ""), flush=True)
        task: Any = ray.remote(num_returns="streaming", max_retries=0, **needs)(_trained)
        lines = task.remote(this_environment(), str(job_file), str(run_dir), self.environment)
        try:
            for line in lines:
                told = ray.get(line)
                if isinstance(told, int):
                    return told
                print(told, end="", flush=True)
        except (ray.exceptions.RayError, OSError):
            raise
        except BaseException:
            ray.cancel(lines)
            with FileLock(RunFiles(run_dir).lock, timeout=GRACE_S):
                raise  # now it has written its checkpoint
        raise Unavailable(f"the trainer ended without an exit code; run the step again (run directory {run_dir})")


def _trained(environment: Digest, job_file: str, run_dir: str, variables: dict[str, str]) -> Iterator[str | int]:
    """In a worker: the trainer's log, line by line, then its exit code."""
    check_environment(environment)
    with FileLock(RunFiles(Path(run_dir)).lock, timeout=GRACE_S):
        pass  # the one that was lost with its worker has written its checkpoint
    trainer = subprocess.Popen(
        [sys.executable, "-m", "pipelines.stages.train.entry", job_file],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        preexec_fn=stop_with_parent,
    )
    try:
        for line in trainer.stdout or ():  # noqa: UP028  # Ray sends to its generators; a file does not take that
            yield line
        yield trainer.wait()
    finally:
        if trainer.poll() is None:
            trainer.send_signal(signal.SIGTERM)
            trainer.wait()
