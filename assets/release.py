"""Verdict -> candidate -> approval. From here on every step names the candidate by digest."""

import dagster as dg

from assets.candidates import Candidate, candidate_model, judgement
from assets.evaluation import layers
from assets.groups import PRODUCTS, asset_in
from assets.outcome import materialized
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import GateVerdict, LayerResults
from evals import gate
from pipelines.stages.release import dossier
from pipelines.stages.release.candidate import register
from pipelines.stages.release.files import report_folder, write_report
from pipelines.wiring import Line
from resources.dagster import Manifests

release_asset = asset_in("release", "evals", "pipelines/stages/release", "data_contracts")
APPROVAL = dg.AssetKey(["release", "approval"])
VERDICT = dg.AssetKey(["release", "verdict"])


@release_asset(deps=layers, kinds={"python"})
def verdict(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    manifests: dg.ResourceParam[Manifests],
    config: Candidate,
) -> dg.MaterializeResult[GateVerdict]:
    """Promote, hold or inconclusive: paired intervals and margins by the product's gate policy."""
    product = line.product(context.partition_key)
    model = candidate_model(context, line, manifests, config)
    results = [judgement(manifests, layer.key, model, LayerResults) for layer in layers]
    made = gate.decide(line, product, model, results)
    pages = dossier.of_verdict(line, product, made[0])
    written = write_report(report_folder(line.home, made[0].digest), pages)
    for row in made[0].criteria:
        interval = f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
        context.log.info(f"{row.name}: {row.outcome}, {row.candidate_mean:.3f}, effect {row.effect:+.3f} {interval}")
    context.log.info(f"{made[0].decision}: {made[0].reason}")
    return materialized(
        made,
        {
            "candidate": model.digest,
            "decision": made[0].decision,
            "reason": made[0].reason,
            "report": dg.MetadataValue.md(pages.markdown),
            "page": dg.MetadataValue.path(str(written)),
        },
    )


@release_asset(deps=[verdict], kinds={"mlflow"})
def candidate(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    manifests: dg.ResourceParam[Manifests],
    config: Candidate,
) -> dg.MaterializeResult[ReleaseManifest]:
    """The release as registered in MLflow: adapter, manifests, verdict and card; it waits for a signature."""
    product = line.product(context.partition_key)
    model = candidate_model(context, line, manifests, config)
    found = judgement(manifests, VERDICT, model, GateVerdict)
    made = register(line, product, model, found, dossier.of_verdict(line, product, found))
    return materialized(made, {"release": made[0].digest, "candidate": model.digest})


approval = dg.AssetSpec(
    APPROVAL,
    deps=[candidate],
    group_name="release",
    partitions_def=PRODUCTS,
    kinds={"openssh"},
    description="A reviewer's SSH signature over the release (`assay approve`). Not made here: the approvals sensor "
    "checks what lies in the inbox and records it.",
)


@dg.asset_check(
    asset=verdict,
    blocking=True,
    description="Only a verdict to promote lets a candidate be registered.",
)
def promotes(manifest: GateVerdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=manifest.decision == "promote", description=manifest.reason)
