"""Signed approvals lie in an inbox; each that is accepted into the audit log starts one promotion."""

from pathlib import Path

import dagster as dg

from assets.release import APPROVAL
from data_contracts.chain import AuditRecord
from data_contracts.errors import AssayError
from data_contracts.manifests import ReleaseManifest
from pipelines.automation import jobs
from pipelines.automation.causes import Cause, asked, cursor_of
from pipelines.stages.release.approval import accept, pending
from pipelines.stages.release.ballot import approvals as standing
from pipelines.stages.release.quorum import names
from pipelines.wiring import Line


@dg.sensor(job=jobs.promote, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def approvals(context: dg.SensorEvaluationContext, line: dg.ResourceParam[Line]) -> dg.SensorResult:
    """Accept what lies in the inbox, then ask for a promotion of each release that has the signatures it needs.

    Promotions follow from the audit log, not from the inbox: a crash in between loses none, and the run key (the
    approval's digest) lets none start twice (see `causes`). A refused approval is moved aside and reported once, with
    the reason.
    """
    refused_before = _refused(line.home)
    for approval in pending(line):
        try:
            accept(line, line.product(approval.statement.product), approval)
        except AssayError as error:
            context.log.error("approval %s: %s", approval.digest, error)
    refusals = {path: reason for path, reason in _refused(line.home).items() if path not in refused_before}
    records = line.log.records()
    before = cursor_of(context.cursor)
    accepted = [r for r in records[before.open :] if r.event == "approval.accepted"]
    causes = [_promotion(record) for record in accepted if _enough(line, records, record)]
    requests, cursor = asked(context, causes, len(records))
    fresh = [record for record in accepted if record.sequence >= before.seen]
    return dg.SensorResult(
        run_requests=requests,
        asset_events=[*map(_accepted, fresh), *(_reported(path, reason) for path, reason in refusals.items())],
        cursor=str(cursor),
    )


def _enough(line: Line, records: list[AuditRecord], record: AuditRecord) -> bool:
    """Whether the release had all its signatures with this one."""
    release = line.store.get_manifest(str(record.body["release"]), ReleaseManifest)
    counted = standing(records[: record.sequence + 1], release)
    return not line.product(record.product).approval.missing(names(counted))


def _promotion(record: AuditRecord) -> Cause:
    request = dg.RunRequest(
        partition_key=record.product,
        run_config={"ops": {"promotion": {"config": {"release": record.body["release"]}}}},
    )
    return Cause(record.sequence, str(record.body["approval"]), request)


def _accepted(record: AuditRecord) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        APPROVAL,
        partition=record.product,
        metadata={
            "release": str(record.body["release"]),
            "approval": str(record.body["approval"]),
            "principal": str(record.body["principal"]),
            "audit record": record.sequence,
        },
    )


def _reported(path: Path, reason: str) -> dg.AssetObservation:
    return dg.AssetObservation(APPROVAL, metadata={"refused": path.name, "reason": reason, "lies in": str(path.parent)})


def _refused(home: Path) -> dict[Path, str]:
    return {path: path.read_text().strip() for path in (home / "approvals" / "refused").glob("*.reason.txt")}
