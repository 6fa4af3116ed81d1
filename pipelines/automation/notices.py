"""Notices that nobody was told yet go out, and go out again until they are taken."""

import dagster as dg

from pipelines.stages.release.notices import deliver
from pipelines.wiring import Line


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def notices(context: dg.SensorEvaluationContext, line: dg.ResourceParam[Line]) -> dg.SkipReason:
    """Tell the addresses of ASSAY_NOTIFY what became of releases; says what they did not take."""
    told = deliver(line)
    for notice, why in told.failed:
        context.log.error("audit record %d: %s; tried again in a minute", notice.record.sequence, why)
    sent = ", ".join(f"{notice.address} of audit record {notice.record.sequence}" for notice in told.sent)
    return dg.SkipReason(f"told {sent}" if sent else f"{len(told.failed)} notices wait")
