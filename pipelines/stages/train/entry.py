"""The trainer program: ``python -m pipelines.stages.train.entry JOB.json``.

Exit codes: 0 done, 1 failed (the reason lies in ``failed.json``), 75 told to stop and ready to resume. It may be killed
at any moment: started again, it goes on from its last whole checkpoint and ends with the same bytes.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

from filelock import FileLock, Timeout

from data_contracts.errors import AssayError
from pipelines.stages.train.job import STOPPED, RunFiles, TrainJob


def main(job_file: Path) -> int:
    job = TrainJob.model_validate_json(job_file.read_bytes())
    files = RunFiles(job.run_dir)
    try:
        with FileLock(files.lock, timeout=0):
            return _run(job, files)
    except Timeout:
        print(f"another trainer is at work in {job.run_dir}: wait for it, or end it", file=sys.stderr)
        return 1


def _run(job: TrainJob, files: RunFiles) -> int:
    if files.result.exists():
        return 0
    files.failed.unlink(missing_ok=True)
    # Threads are fixed before torch starts: their number can change the last bits of a sum.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ["HF_HUB_OFFLINE"] = "1"

    from pipelines.stages.train.progress import sinks
    from pipelines.stages.train.watch import Stop

    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(stop, "asked", True))
    try:
        with sinks(job) as reports:
            from pipelines.stages.train.fit import fit

            result = fit(job, reports, stop)
    except Exception as error:
        if not isinstance(error, AssayError):
            traceback.print_exc()
        _write(files.failed, {"error": type(error).__name__, "reason": str(error)})
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    if result is None:
        print("stopped; the same command goes on from the last checkpoint", flush=True)
        return STOPPED
    _write(files.result, result.payload())
    return 0


def _write(path: Path, value: object) -> None:
    part = path.with_suffix(".part")
    with part.open("w") as handle:
        json.dump(value, handle)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
