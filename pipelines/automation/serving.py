"""Routes, loaded adapters and registry aliases follow the audit log, whatever crashed or was moved by hand."""

import dagster as dg

from assets.groups import PRODUCTS
from pipelines.stages.serve.reconcile import reconcile
from pipelines.wiring import Line


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def reconciliation(context: dg.SensorEvaluationContext, line: dg.ResourceParam[Line]) -> dg.SkipReason:
    """Make what serves equal to what was recorded; says what it had to do."""
    done = reconcile(line, [line.product(name) for name in PRODUCTS.get_partition_keys()])
    for act in done:
        context.log.info(act)
    return dg.SkipReason("; ".join(done) or "what serves is what was recorded")
