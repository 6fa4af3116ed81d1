"""Traffic of the live release -> has it drifted? -> retrain or wait. Recorded; the retraining sensor obeys."""

from datetime import UTC, datetime

import dagster as dg

from assets.groups import asset_in
from assets.outcome import materialized, table
from pipelines.stages.signals.drift import DriftReport, measure, record
from pipelines.stages.signals.outlook import outlook
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.retrain_decision import RetrainDecision, decide_and_record
from pipelines.stages.signals.traces import Traffic, late, traffic
from pipelines.wiring import Line

signals_asset = asset_in("signals", "pipelines/stages/signals")
FROM_SIGNALS = dg.AssetIn(key_prefix="signals")


@signals_asset(kinds={"sqlite"}, deps=[dg.AssetKey(["release", "champion"])])
def traces(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line]) -> dg.MaterializeResult[Traffic]:
    """Histograms of what the gateway answered for the live release: its first window and the newest ones."""
    product, policy = line.product(context.partition_key), load_policy()
    found = traffic(line, product, policy)
    came_late = late(line, product, found.release, policy) if found.release else 0
    return materialized(
        (found, False),
        {"windows": len(found.current), "release": found.release or "none: the base", "late": came_late},
    )


@signals_asset(ins={"traces": FROM_SIGNALS}, kinds={"python"})
def drift(
    context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], traces: Traffic
) -> dg.MaterializeResult[DriftReport]:
    """Population stability index of prompt length, tools and JSON validity, sustained over windows."""
    report = measure(traces, load_policy())
    recorded = record(line, report)
    scores = table(
        ("feature", "PSI by window", "sustained"), [(f.feature, f.psi, f.sustained) for f in report.features]
    )
    return materialized((report, not recorded), {"drifted": report.drifted, "reason": report.reason, "psi": scores})


@signals_asset(ins={"drift": FROM_SIGNALS}, kinds={"python"})
def retrain_decision(
    context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], drift: DriftReport
) -> dg.MaterializeResult[RetrainDecision]:
    """Retrain, fix something else, or wait, with reasons, what retraining would take and what it promises."""
    seconds, policy = past_training_seconds(context.instance, context.partition_key), load_policy()
    product = line.product(context.partition_key)
    promised = outlook(line, product, policy, datetime.now(UTC)) if drift.drifted else None
    decision = decide_and_record(line, drift, policy, seconds, promised)
    told = {"outlook": "; ".join(promised.words)} if promised else {}
    return materialized(
        (decision, False), {"decision": decision.decision, "reasons": "; ".join(decision.reasons), **told}
    )


def past_training_seconds(instance: dg.DagsterInstance, product: str, limit: int = 5) -> list[float]:
    """How long the newest runs took that really trained this product's model (no hits)."""
    filters = dg.AssetRecordsFilter(asset_key=dg.AssetKey(["model", "sft"]), asset_partitions=[product])
    trained: list[float] = []
    for made in instance.fetch_materializations(filters, limit=20).records:
        event = made.asset_materialization
        run = instance.get_run_record_by_id(made.run_id)
        if event and run and event.metadata["hit"].value is False and run.start_time and run.end_time:
            trained.append(run.end_time - run.start_time)
    return trained[:limit]
