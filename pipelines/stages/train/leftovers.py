"""What unfinished training runs keep on disk (exported rows, checkpoints, weights), and how erasure takes it away."""

import json
import shutil
import time
from collections.abc import Collection
from pathlib import Path

from data_contracts.digests import Digest
from data_contracts.errors import Unavailable
from pipelines.stages.train.job import RunFiles

_TRIES = 50


def runs_with(training: Path, rows: Collection[Digest]) -> list[Path]:
    """Run directories below ``training`` that learn from one of these rows, or that hold rows and do not say which."""
    return [run for run in sorted(training.glob("*")) if _learns_from(RunFiles(run), rows)]


def forget_runs(training: Path, rows: Collection[Digest]) -> None:
    """Delete those runs. One that is under way ends with an error at its next step. Raises `Unavailable` when one keeps
    writing."""
    for _ in range(_TRIES):
        found = runs_with(training, rows)
        if not found:
            return
        for run in found:
            shutil.rmtree(run, ignore_errors=True)  # a trainer may write while it is deleted: then once more
        time.sleep(0.1)
    raise Unavailable(f"training in {found[0]} goes on writing: end it, then do the same again")


def _learns_from(files: RunFiles, rows: Collection[Digest]) -> bool:
    try:
        named = json.loads(files.job.read_bytes())["row_names"]
    except (OSError, ValueError, KeyError):
        return files.rows.exists()
    return any(name in rows for split in named.values() for name in split)
