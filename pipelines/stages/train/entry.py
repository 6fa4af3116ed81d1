"""The trainer program: ``python -m pipelines.stages.train.entry JOB.json``.

Exit codes: 0 done, 1 failed (the reason lies in ``failed.json``), 75 ready to resume: it was told to stop, or lost the
store of its checkpoints. It may be killed at any moment: started again, it goes on from its last whole checkpoint and
ends with the same bytes. Told to stop, it takes a checkpoint after the step; what takes longer than the grace period
(``ASSAY_GRACE_SECONDS``, 25 when not set) is left off. A recipe with a ``parallel`` section makes it start itself once
for each process, through ``accelerate launch``.
"""

import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from data_contracts.errors import AssayError
from pipelines.stages.train import ranks
from pipelines.stages.train.checkpoints import StoreLost, is_full
from pipelines.stages.train.guards import GuardTripped, RollBack
from pipelines.stages.train.job import STOPPED, RunFiles, TrainJob, TrainResult, Trip
from pipelines.stages.train.launcher import stop_with_parent
from pipelines.stages.train.leftovers import claim_store
from pipelines.stages.train.output import kept
from pipelines.stages.train.parallel import leave_code, run_ranks
from pipelines.stages.train.redact import described, without_rows

if TYPE_CHECKING:
    from pipelines.stages.train.progress import Sink
    from pipelines.stages.train.watch import Stop

_GRACE_S = 25.0
"""Kubernetes kills after 30."""


def main(job_file: Path) -> int:
    job = TrainJob.model_validate_json(job_file.read_bytes())
    files = RunFiles(job.run_dir)
    if ranks.started():
        stop_with_parent()
    if not ranks.is_main():
        return _run(job, files, job_file)
    try:
        # Held by the process that writes until it has ended, whatever became of the one that started it.
        with FileLock(files.lock, timeout=0):
            if job.recipe.parallel is None or ranks.started():
                with kept(files.log):
                    code = _run(job, files, job_file)
                if ranks.started():
                    leave_code(files, code)
                return code
        return run_ranks(job_file, files, job.recipe.parallel)
    except Timeout:
        print(f"another trainer is at work in {job.run_dir}: wait for it, or end it", file=sys.stderr)
        return 1


def _run(job: TrainJob, files: RunFiles, job_file: Path) -> int:
    if files.result.exists():
        return 0
    if ranks.is_main():
        files.failed.unlink(missing_ok=True)
        files.stop.unlink(missing_ok=True)
    # Threads are fixed before torch starts: their number can change the last bits of a sum.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ["HF_HUB_OFFLINE"] = "1"

    from pipelines.stages.train.progress import sinks
    from pipelines.stages.train.watch import Stop

    stop = Stop(files.stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _ask(stop))
    try:
        if ranks.is_main():
            claim_store(job.store, job_file)
        with sinks(job) as reports:
            result = _fitted(job, reports, stop)
            for report in reports:
                report.end("stopped" if result is None else "done", "")
    except Exception as error:
        return _failed(job, files, error)
    if not ranks.is_main():
        return 0  # what became of the run, rank 0 says
    if result is None:
        print("stopped; the same command goes on from the last checkpoint", flush=True)
        return STOPPED
    _write(files.result, result.payload())
    return 0


def _fitted(job: TrainJob, reports: "Sequence[Sink]", stop: "Stop") -> TrainResult | None:
    from pipelines.stages.train.fit import fit

    trips: tuple[Trip, ...] = ()
    while True:
        try:
            return fit(job, reports, stop, trips)
        except RollBack as back:
            trips = back.trips
            print(f"rolled back: {back}", flush=True)
        gc.collect()  # the model that is left behind: its successor needs the memory


def _ask(stop: "Stop") -> None:
    if stop.signalled:
        return
    stop.signalled = True
    grace = threading.Timer(float(os.environ.get("ASSAY_GRACE_SECONDS", _GRACE_S)), _leave)
    grace.daemon = True
    grace.start()


def _leave() -> None:
    print("stopped: the step did not end in time; the same command goes on from the last checkpoint", flush=True)
    os._exit(STOPPED)


def _failed(job: TrainJob, files: RunFiles, error: Exception) -> int:
    """Leave a record of what went wrong, where and with what, unless there is no room even for that."""
    if not isinstance(error, AssayError):
        print(without_rows(traceback.format_exc(), files), file=sys.stderr)
    reason = described(error, files)
    if is_full(error):
        reason = (
            f"the disk is full ({error}); make room, then run the same again: checkpoints that were sealed are whole"
        )
    print(f"training failed: {reason}", file=sys.stderr)
    if ranks.count() > 1 and files.failed.exists():
        return 1  # the first rank that fails knows why; the others only lose it
    trips = error.trips if isinstance(error, GuardTripped) else ()
    last = _last_point(files.metrics)
    record = {
        "error": type(error).__name__,
        "reason": reason,
        "guard": trips[-1].guard if trips else None,
        "step": trips[-1].step if trips else last.get("step"),
        "last_metrics": last,
        "trips": [trip.payload() for trip in trips],
        "hyperparameters": job.recipe.payload(),
    }
    try:
        _write(files.failed, record)
    except OSError as unwritten:
        print(f"{files.failed} was not written: {unwritten}", file=sys.stderr)
    return STOPPED if isinstance(error, StoreLost) else 1


def _last_point(metrics: Path) -> dict[str, Any]:
    """The last value of each figure that the run reported."""
    found: dict[str, Any] = {}
    for line in metrics.read_text().splitlines() if metrics.exists() else ():
        try:
            found |= json.loads(line)
        except ValueError:  # a line that a kill cut short
            continue
    return found


def _write(path: Path, value: object) -> None:
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w") as handle:
        json.dump(value, handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
