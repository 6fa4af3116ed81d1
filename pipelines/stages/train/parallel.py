"""One trainer, several processes: ``accelerate launch`` starts them, and none of them outlives it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from pipelines.recipes.recipe import Parallel
from pipelines.stages.train.job import STOPPED, RunFiles
from pipelines.stages.train.launcher import GRACE_S, stop_with_parent

_CODE = "exit-code"


def run_ranks(job_file: Path, files: RunFiles, parallel: Parallel) -> int:
    """Run the program in each process, and pass SIGTERM and SIGINT on. The exit code of rank 0: ``accelerate launch``
    has one code for all failures."""
    code = files.lock.with_name(_CODE)
    code.unlink(missing_ok=True)
    launcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"),
            *("--num_processes", str(parallel.processes), "--main_process_port", "0"),
            *("--mixed_precision", "no", "--dynamo_backend", "no"),  # the trainer reads the recipe instead
            *("--module", "pipelines.stages.train.entry", str(job_file)),
        ],
        env={"OMP_NUM_THREADS": "1", **os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S)},
        process_group=0,  # so that it hears of a signal once, from here
        preexec_fn=stop_with_parent,
    )
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        if not stopped:
            launcher.send_signal(signal.SIGTERM)
        stopped = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    launcher.wait()
    with FileLock(files.lock, timeout=GRACE_S):
        pass  # where the launcher was killed, rank 0 still writes its checkpoint
    if not code.exists():
        return STOPPED if stopped else 1
    found = int(code.read_text())
    code.unlink()
    return found


def leave_code(files: RunFiles, code: int) -> None:
    """In rank 0, before it ends."""
    files.lock.with_name(_CODE).write_text(str(code))
