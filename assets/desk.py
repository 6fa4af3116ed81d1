"""The technique desk. Beside the line: nothing there waits for it."""

import dagster as dg

from assets.candidates import SELECTED, Candidate, candidate_model
from assets.evaluation import eval_asset
from assets.outcome import materialized
from evals.desk import Asking
from evals.desk_sheet import DeskSheet
from pipelines.stages.release.files import report_folder, write_report
from pipelines.stages.release.techniques import decision_sheet
from pipelines.wiring import Line
from resources.dagster import Manifests


@eval_asset(deps=[SELECTED], kinds={"vllm"}, pool="gpu")
def techniques(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    manifests: dg.ResourceParam[Manifests],
    config: Candidate,
) -> dg.MaterializeResult[DeskSheet]:
    """Prompt, worked examples, retrieval or fine-tuning? The sheet: quality, latency, cost, what to take."""
    product = line.product(context.partition_key)
    model = candidate_model(context, line, manifests, config)
    sheet, report = decision_sheet(line, product, model, line.hour_cost, Asking(), context.log.info)
    for part in sheet.suites:
        context.log.info(f"{part.suite}: {part.choice.decision}, {part.choice.technique}: {part.choice.reasons[-1]}")
    return materialized(
        (sheet, False),
        {
            "candidate": model.digest,
            "decision": sheet.choice.decision,
            "technique": sheet.choice.technique or "none",
            "sheet": dg.MetadataValue.md(report.markdown),
            "page": dg.MetadataValue.path(str(write_report(report_folder(line.home, sheet.digest), report))),
        },
    )
