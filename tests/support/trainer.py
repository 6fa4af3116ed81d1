"""The trainer program in real processes that start in a moment: a fork server has imported the libraries already."""

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_contracts.digests import Digest, tree_digest, tree_files
from pipelines.stages.train.checkpoints import SEAL
from pipelines.stages.train.entry import main
from pipelines.stages.train.job import RunFiles
from tests.support.ports import free_ports

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["pipelines.stages.train.fit"])
_PATIENCE = 120.0


Harm = Callable[[], None]


def _run(job_file: str, log: str, harm: Harm | None, environment: dict[str, str]) -> None:
    gc.freeze()  # accelerate collects at every start: what was imported need not be looked through, half of a short run
    os.environ.update({"OMP_NUM_THREADS": "1"} | environment)
    if harm is not None:
        harm()
    with open(log, "a", buffering=1) as sys.stdout:
        sys.stderr = sys.stdout
        sys.exit(main(Path(job_file)))


class Trainer:
    """One process of the program; its output is appended to ``trainer.log`` of the run directory. ``harm`` (one of
    `tests.support.poison`) is done to it first."""

    def __init__(self, job_file: Path, harm: Harm | None = None, **environment: str) -> None:
        self.files = RunFiles(job_file.parent)
        self.log = job_file.parent / "trainer.log"
        self.process = _CONTEXT.Process(target=_run, args=(str(job_file), str(self.log), harm, environment))
        self.process.start()

    def wait(self) -> int | None:
        """Its exit code."""
        self.process.join(_PATIENCE)
        return self.process.exitcode

    def signal_when(self, number: signal.Signals, moment: Callable[[], bool]) -> int | None:
        """Send a signal as soon as ``moment()`` is true, unless it has ended before; its exit code."""
        deadline = time.monotonic() + _PATIENCE
        while not moment() and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.0005)
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)
        return self.wait()


def finish(job_file: Path, harm: Harm | None = None, **environment: str) -> Digest:
    """Run the program to its end; the digest of the weights that it leaves."""
    trainer = Trainer(job_file, harm, **environment)
    code = trainer.wait()
    assert code == 0, trainer.log.read_text()
    return weights_digest(job_file)


def start_ranks(job_file: Path, harm: Harm | None = None) -> tuple[Trainer, Trainer]:
    """Two processes that share each batch, as ``accelerate launch`` starts them."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    first, second = (Trainer(job_file, harm, RANK=rank, LOCAL_RANK=rank, **shared) for rank in "01")
    return first, second


def weights_digest(job_file: Path) -> Digest:
    return tree_digest(tree_files(RunFiles(job_file.parent).weights))


def sealed(job_file: Path, step: int) -> Callable[[], bool]:
    """Whether the checkpoint of the step is whole; it is written beside the training, which may be steps ahead."""
    seal = RunFiles(job_file.parent).checkpoints / f"step-{step}" / SEAL
    return lambda: seal.exists() and seal.stat().st_size > 0


def reached(job_file: Path, step: int) -> Callable[[], bool]:
    """Whether the run has reported a step's training loss."""
    metrics = RunFiles(job_file.parent).metrics

    def moment() -> bool:
        return metrics.exists() and f'"step": {step}, "loss"' in metrics.read_text()

    return moment
