"""When the policy says so: has traffic drifted? A recorded decision to retrain, and nothing else, starts the line by
itself."""

import dagster as dg

from assets.groups import PRODUCTS
from pipelines.automation import jobs
from pipelines.automation.causes import Cause, asked, cursor_of
from pipelines.settings import Settings
from pipelines.stages.signals.drift import is_recorded
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.retrain_decision import is_released
from pipelines.stages.signals.traces import traffic
from pipelines.wiring import Line


@dg.schedule(
    job=jobs.signals,
    cron_schedule=load_policy(Settings().signals).check,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def drift_check(
    context: dg.ScheduleEvaluationContext, line: dg.ResourceParam[Line]
) -> list[dg.RunRequest] | dg.SkipReason:
    """Look at the products whose traffic has a whole new window since the last look, or whose held retraining is free
    again."""
    policy = line.signal_policy
    now = context.scheduled_execution_time
    due = [
        product
        for product in PRODUCTS.get_partition_keys()
        if not is_recorded(line, traffic(line, line.product(product), policy))
        or is_released(line, product, policy, now)
    ]
    runs = [dg.RunRequest(run_key=f"{product} {now.isoformat()}", partition_key=product) for product in due]
    return runs or dg.SkipReason("no whole window of new answers, and nothing held that is free again")


@dg.sensor(job=jobs.line, minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def retraining(context: dg.SensorEvaluationContext, line: dg.ResourceParam[Line]) -> dg.SensorResult:
    """One run of the line for each recorded decision to retrain."""
    records = line.log.records()
    causes = [
        Cause(record.sequence, f"retrain {record.digest}", dg.RunRequest(partition_key=record.product))
        for record in records[cursor_of(context.cursor).open :]
        if record.event == "retrain.decided"
        and record.body["decision"] == "retrain"
        and record.product in PRODUCTS.get_partition_keys()
    ]
    requests, cursor = asked(context, causes, len(records))
    return dg.SensorResult(run_requests=requests, cursor=str(cursor))
