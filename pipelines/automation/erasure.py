"""Requests to erase, and erasures that a crash left unfinished, start one job that works them off."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.groups import PRODUCTS
from assets.signals import past_training_seconds
from pipelines.stages.signals.erasure_queue import waiting, work_off
from pipelines.wiring import Line

_STATUSES = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
_UNDER_WAY = [dg.DagsterRunStatus[name] for name in _STATUSES]
_TO_BEGIN = timedelta(minutes=5)
"""A run that was started may take so long until it holds the lock of erasures."""


@dg.op(description="Finish erasures that were begun and empty the queue (`assay erase --queue`).")
def erase_subjects(context: dg.OpExecutionContext, line: dg.ResourceParam[Line]) -> None:
    products = [line.product(name) for name in PRODUCTS.get_partition_keys()]
    for receipt in work_off(line, products, lambda name: past_training_seconds(context.instance, name)):
        context.log.info(f"erased subject {receipt.subject}: receipt {receipt.digest}")


@dg.job(description="Erase the subjects that were asked for: content, keys, releases, routes; a receipt each.")
def erase() -> None:
    erase_subjects()


@dg.sensor(job_name="erase", minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def erasures(context: dg.SensorEvaluationContext, line: dg.ResourceParam[Line]) -> dg.RunRequest | dg.SkipReason:
    """One run at a time, again and again until nothing waits: an erasure may not be given up."""
    count = len(waiting(line))
    if not count:
        return dg.SkipReason("no erasure waits")
    if line.locks.held("erasure") or _begins(context.instance):
        return dg.SkipReason("an erasure is under way")
    return dg.RunRequest()


def _begins(instance: dg.DagsterInstance) -> bool:
    """Whether a run is about to erase. One that died with its machine is called started for ever: Dagster does not
    look after it, and the lock that it held is free."""
    records = instance.get_run_records(dg.RunsFilter(job_name=erase.name, statuses=_UNDER_WAY))
    since = (datetime.now(UTC) - _TO_BEGIN).timestamp()
    return any(record.start_time is None or record.start_time > since for record in records)
