"""Every start of the trainer leaves a record: what it was to do, how it ended and where. See `RunRecord`."""

import json
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from data_contracts.digests import Digest, hex_of
from data_contracts.runs import Outcome, RunRecord
from pipelines.recipes.product import ROOT
from pipelines.stages.protocols import Parts
from pipelines.stages.train.job import STOPPED, RunFiles, TrainJob
from pipelines.stages.train.output import tail
from pipelines.stages.train.redact import without_rows

_LATELY = 100
"""So many reports are read for the newest numbers and the usual speed."""
_PACE = ("step", "begun_at", "tokens", "tokens_per_second", "memory_gb", "device_memory_gb", "eta_seconds")


def run_dir(parts: Parts, key: Digest) -> Path:
    """Where a piece of training is done, and where it goes on after a kill."""
    return parts.home.resolve() / "training" / hex_of(key)


def lock_of(key: Digest) -> str:
    """The lock that its step holds from before the trainer starts until the manifest is written."""
    return f"training-{hex_of(key)[:16]}"


@contextmanager
def recorded(parts: Parts, job: TrainJob, key: Digest, data: Digest) -> Iterator[None]:
    """Around a start of the trainer: opens its record, and closes it with what was left. The caller holds the lock of
    this work, so that any record of it that is still open is of a run whose caller was killed."""
    files, schedule = RunFiles(job.run_dir), job.recipe.schedule(job.stage)
    _close_left_open(parts, parts.runs.find(outcomes=["running"], action_key=key))
    for path in (files.failed, files.ended, files.log, files.environment):
        path.unlink(missing_ok=True)
    record = RunRecord(
        run=uuid4().hex[:12],
        product=job.product,
        stage=job.stage,
        outcome="running",
        steps=schedule.steps,
        rows_a_step=schedule.batch_size * schedule.accumulate,
        action_key=key,
        recipe=job.recipe.digest,
        base=job.base_digest,
        data=data,
        hyperparameters=job.recipe.payload(),
        commit=commit(),
        host=platform.node(),
        started=datetime.now(UTC),
    )
    parts.runs.put(record)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        parts.runs.put(_closed(record, files, parts.hour_cost, datetime.now(UTC), failure))


def settle(parts: Parts) -> None:
    """Close the records of runs that were killed together with what started them: nobody holds their locks."""
    open_ones = parts.runs.find(outcomes=["running"])
    _close_left_open(parts, [each for each in open_ones if not parts.locks.held(lock_of(each.action_key))])


def _close_left_open(parts: Parts, records: list[RunRecord]) -> None:
    for record in records:
        files = RunFiles(run_dir(parts, record.action_key))
        if not _at_work(files):
            parts.runs.put(_closed(record, files, parts.hour_cost, _last_sign(record, files), None))


def _at_work(files: RunFiles) -> bool:
    """Whether a trainer holds the lock of its run directory: one may outlive what started it."""
    if not files.lock.exists():
        return False
    try:
        with FileLock(files.lock, timeout=0):
            return False
    except Timeout:
        return True


def _closed(
    record: RunRecord, files: RunFiles, hour_cost: float | None, ended: datetime, failure: BaseException | None
) -> RunRecord:
    failed, told = _read(files.failed), _read(files.ended)
    outcome, reason = _outcome(files, failed, told, failure)
    environment = {name: str(value) for name, value in _read(files.environment).items()}
    reports = _reports(files, record.started)
    newest = {name: value for report in reports for name, value in report.items() if isfinite(value)}
    speeds = [report["tokens_per_second"] for report in reports if "tokens_per_second" in report]
    seconds = max(0.0, (ended - record.started).total_seconds())
    begun, step = int(newest.get("begun_at", 0)), int(failed.get("step") or newest.get("step", 0))
    return record.model_copy(
        update={
            "outcome": outcome,
            "reason": reason,
            "error": str(failed.get("error", "")),
            "guard": str(failed.get("guard") or ""),
            "trips": tuple(failed.get("trips") or _read(files.result).get("trips") or ()),
            "begun_at": begun,
            "step": step,
            "rows": max(0, step - begun) * record.rows_a_step,
            "exit_code": getattr(failure, "code", {"done": 0, "stopped": STOPPED}.get(outcome)),
            "metrics": {name: value for name, value in newest.items() if name not in _PACE},
            "environment": environment,
            "ended": ended,
            "seconds": round(seconds, 3),
            "tokens": int(newest.get("tokens", 0)),
            "tokens_per_second": median(speeds) if speeds else None,
            "peak_memory_gb": newest.get("memory_gb"),
            "device_memory_gb": newest.get("device_memory_gb"),
            "gpu_seconds": round(seconds * int(environment.get("devices", 0)), 3),
            "cost": None if hour_cost is None else round(seconds / 3600 * hour_cost, 6),
            "log_tail": without_rows(tail(files.log), files),
        }
    )


def _outcome(
    files: RunFiles, failed: dict[str, Any], told: dict[str, Any], failure: BaseException | None
) -> tuple[Outcome, str]:
    """What the trainer left says how it ended; where it left nothing, it was killed, or it never started."""
    if files.result.is_file():
        return "done", ""
    if failed:
        return "failed", str(failed.get("reason", ""))
    if told.get("outcome") == "stopped" or getattr(failure, "code", None) == STOPPED:
        return "stopped", "told to stop; the same step goes on from its checkpoint"
    if files.log.exists() or failure is None:
        return "killed", "it left neither a result nor a reason: it was killed, or the machine took its memory back"
    return "failed", f"it did not start: {without_rows(str(failure), files)}"


def speeds(parts: Parts, key: Digest) -> list[dict[str, float]]:
    """{step, tokens_per_second} of a finished piece of training, from the numbers that stay of it; no part of its
    manifest, since they come out otherwise every time."""
    found = _read_lines(RunFiles(run_dir(parts, key)).metrics)
    wanted = ("step", "tokens_per_second")
    return [{name: report[name] for name in wanted} for report in found if "tokens_per_second" in report]


def _reports(files: RunFiles, since: datetime) -> list[dict[str, float]]:
    """The newest numbers of a run; those of an earlier one when it ended before its first report do not count."""
    if not files.metrics.exists() or files.metrics.stat().st_mtime < since.timestamp():
        return []
    return _read_lines(files.metrics)[-_LATELY:]


def _read_lines(path: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    if path.exists():
        for line in path.read_text().splitlines():
            with suppress(ValueError):  # cut off by a kill
                found.append(json.loads(line))
    return found


def _last_sign(record: RunRecord, files: RunFiles) -> datetime:
    """When it last wrote something."""
    signs = [path.stat().st_mtime for path in (files.log, files.metrics) if path.exists()]
    return max([record.started, *(datetime.fromtimestamp(sign, UTC) for sign in signs)])


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def commit() -> str:
    """The project's commit, with ``+`` when tracked files were changed since; ``none`` where it is no checkout."""
    if not (ROOT / ".git").exists():
        return "none"
    try:
        head, changed = (
            subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return f"{head}+" if changed else head
