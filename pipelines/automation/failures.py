"""Nobody looks at a run that started by itself: that it failed is a record of the audit log, which raises an alert."""

from typing import Any

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from data_contracts.chain import AuditRecord
from pipelines.automation import jobs
from pipelines.automation.causes import CAUSE, TRIES, never_started
from pipelines.wiring import Line


@dg.run_failure_sensor(
    monitored_jobs=[jobs.line, jobs.promote],
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def failures(context: dg.RunFailureSensorContext, line: dg.ResourceParam[Line]) -> dg.SkipReason | None:
    """Record each failed run that a recorded decision or approval started, once.

    Not one that never started, unless it was the last try (see `causes`), nor one whose canary failed, which is
    recorded as such. The record names step and error; what the error says may quote a row, and stays in the run."""
    run = context.dagster_run
    cause, product = run.tags.get(CAUSE), run.tags.get(PARTITION_NAME_TAG)
    found = context.instance.get_run_record_by_id(run.run_id)
    if not cause or not product or found is None:
        return dg.SkipReason(f"somebody started run {run.run_id}, and looks at it")
    if found.start_time is None:
        tries = context.instance.get_run_records(dg.RunsFilter(tags={CAUSE: cause}))
        if len(never_started(tries)) < TRIES:
            return dg.SkipReason(f"run {run.run_id} never started and is asked for again")
    records = line.log.records()
    if any(record.event == "run.failed" and record.body["run"] == run.run_id for record in records):
        return dg.SkipReason(f"run {run.run_id} was recorded before")
    if found.start_time and any(_is_its_canary(record, run, found.start_time) for record in records):
        return dg.SkipReason(f"the canary of run {run.run_id} failed, and was recorded")
    step, error = _where(context)
    body = {"job": run.job_name, "run": run.run_id, "cause": cause, "step": step, "error": error}
    line.log.append("run.failed", product, body, actor="dagster")
    return None


def _is_its_canary(record: AuditRecord, run: dg.DagsterRun, started: float) -> bool:
    if record.event != "canary.recorded" or record.body["outcome"] != "fail":
        return False
    config: Any = run.run_config
    asked = config.get("ops", {}).get("promotion", {}).get("config", {}).get("release")
    return record.body["release"] == asked and record.time.timestamp() >= started


def _where(context: dg.RunFailureSensorContext) -> tuple[str, str]:
    """The first step that failed and the class of the error that was at the bottom of it; nothing of a run that was
    not able to tell."""
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        return str(event.step_key), (error.cls_name if error else None) or ""
    return "", ""
