"""Traffic of the live release -> meters: has it drifted? -> retrain or wait. Recorded; the retraining sensor obeys."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from assets.groups import asset_in
from assets.outcome import Shown, materialized, table
from evals import plots
from pipelines.stages.signals.costs import prices_file, read_prices
from pipelines.stages.signals.drift import DriftReport, histories, measure, record
from pipelines.stages.signals.exchanges import exchanges as read_exchanges
from pipelines.stages.signals.judged import Judged
from pipelines.stages.signals.judged import judged as read_judged
from pipelines.stages.signals.learned import learned
from pipelines.stages.signals.meters import History
from pipelines.stages.signals.outlook import outlook
from pipelines.stages.signals.retrain_decision import RetrainDecision, decide_and_record, waiting_for
from pipelines.stages.signals.traces import Traffic, late, traffic
from pipelines.wiring import Line

signals_asset = asset_in("signals", "pipelines/stages/signals")
FROM_SIGNALS = dg.AssetIn(key_prefix="signals")


@signals_asset(kinds={"sqlite"}, deps=[dg.AssetKey(["release", "champion"])])
def traces(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line]) -> dg.MaterializeResult[Traffic]:
    """Windows of what the gateway answered for the live release: the first one and the newest. Counts, no text."""
    product, policy = line.product(context.partition_key), line.signal_policy
    found = traffic(line, product, policy)
    came_late = late(line, product, found.release, policy) if found.release else 0
    return materialized(
        (found, False),
        {"windows": len(found.current), "release": found.release or "none: the base", "late": came_late},
    )


@signals_asset(kinds={"sqlite"}, deps=[dg.AssetKey(["release", "champion"])])
def exchanges(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line]) -> dg.MaterializeResult[Traffic]:
    """Windows of the answers that are kept in words: language, digits, meaning, refusals, toxicity. Counts, no text."""
    found = read_exchanges(line, line.product(context.partition_key), line.signal_policy)
    whole = len(found.current) + (found.reference is not None)
    return materialized((found, False), {"windows": whole, "release": found.release or "none: the base"})


@signals_asset(kinds={"openai"}, deps=[dg.AssetKey(["release", "champion"])])
def judged(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line]) -> dg.MaterializeResult[Judged]:
    """Windows of what the product's judge model says of the answers that are kept in words. Counts, no text."""
    found = read_judged(line, line.product(context.partition_key), line.signal_policy)
    windows = found.traffic.current if found.traffic else ()
    word = found.untrusted or "counts" if found.traffic else "no judge is named"
    return materialized((found, False), {"windows": len(windows), "judge": word})


@signals_asset(ins=dict.fromkeys(("traces", "exchanges", "judged"), FROM_SIGNALS), kinds={"python"})
def drift(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    traces: Traffic,
    exchanges: Traffic,
    judged: Judged,
) -> dg.MaterializeResult[DriftReport]:
    """Every meter of the policy: its newest windows against the reference, and whether what is seen lasts."""
    policy = line.signal_policy
    known = learned(line, traces.release) if traces.release else None
    prices = read_prices(prices_file(line.home))
    report = measure(traces, policy, exchanges, known, prices, judged)
    recorded = record(line, report)
    shown: dict[str, Shown] = {"drifted": report.drifted, "reason": report.reason, "meters": meters_table(report)}
    if any(each.windows for each in report.features):
        read = histories(traces, policy, exchanges, known, prices, judged)
        picture = b64encode(meters_plot(report, read).png()).decode()
        shown["plot"] = dg.MetadataValue.md(f"![meters by window](data:image/png;base64,{picture})")
    return materialized((report, not recorded), shown)


@signals_asset(ins={"drift": FROM_SIGNALS}, kinds={"python"})
def retrain_decision(
    context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], drift: DriftReport
) -> dg.MaterializeResult[RetrainDecision]:
    """Retrain, fix something else, or wait, with reasons, what retraining would take and what it promises."""
    seconds, policy = past_training_seconds(context.instance, context.partition_key), line.signal_policy
    product = line.product(context.partition_key)
    promised = outlook(line, product, policy, datetime.now(UTC)) if drift.drifted else None
    waiting = waiting_for(line, drift) if drift.drifted and product.learns_from_feedback() else 0
    decision = decide_and_record(line, drift, policy, seconds, promised, waiting=waiting)
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


def meters_table(report: DriftReport) -> dg.MarkdownMetadataValue:
    rows = []
    for each in report.features:
        over = sum(window.score >= each.threshold for window in each.windows)
        state = "drifted" if each.sustained else f"{over} of {len(each.windows)} windows over" if over else ""
        rows.append((each.feature, each.method, each.reading, "" if each.rise is None else each.rise, state))
    return table(("meter", "method", "newest window", "CUSUM", "state"), rows)


def meters_plot(report: DriftReport, read: Mapping[str, History | str]) -> plots.Figure:
    return plots.courses(
        [
            plots.Course(
                title=each.feature,
                numbers=[window.number or place for place, window in enumerate(found.windows, start=1)],
                values=[window.value for window in found.windows],
                over=[window.score >= each.threshold for window in found.windows],
                reference=found.reference,
                lasts=each.sustained,
            )
            for each in report.features
            if isinstance(found := read[each.feature], History) and found.windows
        ]
    )
