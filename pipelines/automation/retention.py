"""Every night: traces older than ASSAY_TRACES_DAYS go, unless they are needed; feedback and words older than
ASSAY_FEEDBACK_DAYS go."""

import dagster as dg

from pipelines.stages.signals.retention import expire, expire_feedback
from pipelines.wiring import Line


@dg.op(description="Delete traces older than ASSAY_TRACES_DAYS that no note for support and no canary needs.")
def expire_old(context: dg.OpExecutionContext, line: dg.ResourceParam[Line]) -> None:
    for record in expire(line, line.settings.traces_days):
        context.log.info(f"{record.product}: {record.body['traces']} traces and {record.body['shadows']} of shadows")
    for record in expire_feedback(line, line.settings.feedback_days):
        context.log.info(f"{record.product}: {record.body['feedback']} feedback, {record.body['exchanges']} exchanges")


@dg.job(description="Delete traces that are old enough and not needed; the audit log says how many.")
def expire_traces() -> None:
    expire_old()


@dg.schedule(job=expire_traces, cron_schedule="41 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def trace_retention() -> dg.RunRequest:
    return dg.RunRequest()
