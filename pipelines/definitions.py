"""The only composition root: assets, checks, jobs, schedules, sensors and resources of the code location."""

import dagster as dg

from assets import desk, evaluation, release, search, serving, signals, training
from assets.checks import DATA_ASSETS, checks
from pipelines.automation import jobs
from pipelines.automation.approvals import approvals
from pipelines.automation.erasure import erase, erasures
from pipelines.automation.failures import failures
from pipelines.automation.notices import notices
from pipelines.automation.retention import expire_traces, trace_retention
from pipelines.automation.retraining import drift_check, retraining
from pipelines.automation.serving import reconciliation
from pipelines.wiring import Line
from resources.dagster import ManifestIOManager, Manifests


@dg.definitions
def definitions() -> dg.Definitions:
    line = Line()
    manifests = Manifests(line.home / "manifests", line.store)
    return dg.Definitions(
        assets=[
            *DATA_ASSETS,
            *(training.base, training.sft, training.preference_tuned, training.selected),
            search.recipe,
            *evaluation.layers,
            desk.techniques,
            *(release.verdict, release.candidate, release.approval),
            serving.promotion,
            *(signals.traces, signals.exchanges, signals.judged, signals.drift, signals.retrain_decision),
        ],
        asset_checks=[*checks, release.promotes],
        jobs=[*jobs.all_jobs, erase, expire_traces],
        schedules=[drift_check, trace_retention],
        sensors=[approvals, erasures, failures, notices, reconciliation, retraining],
        resources={"line": line, "manifests": manifests, "io_manager": ManifestIOManager(manifests)},
        executor=dg.in_process_executor,
    )
