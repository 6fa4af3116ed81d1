"""An accepted approval starts one promotion, which materializes challenger, canary and champion."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import serving
from data_contracts.chain import live_releases
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import Approval
from pipelines.automation.approvals import approvals
from pipelines.automation.serving import reconciliation
from pipelines.stages.release.approval import submit
from tests.assets.conftest import PRODUCT, Runner, reason
from tests.support.line import ANSWER, SmallLine


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the challenger answers through the gateway."""
    says = {"text": ANSWER}
    monkeypatch.setattr(serving, "GatewayAsk", lambda url, key: SmallLine.ask(says["text"]))
    return says


def submitted(small: SmallLine, approval: Approval) -> Path:
    return submit(small.parts, approval.release, approval.statement, approval.signature, approval.principal)


def ticked(run: Runner, cursor: str | None = None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=run.instance, cursor=cursor, resources={"line": run.small.parts})
    found: dg.SensorResult = approvals(context)
    return found


def live(small: SmallLine) -> str | None:
    return live_releases(small.parts.log.records()).get((PRODUCT, "production"))


def materialized(result: Any) -> list[str]:
    return [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()]


def promoted(run: Runner, release: ReleaseManifest) -> Any:
    return run([serving.promotion], {"promotion": {"release": release.digest}})


@dg.job
def jobless() -> None:
    """Stands for a run that is only recorded."""


def test_a_signed_approval_asks_for_one_promotion(run: Runner) -> None:
    release = run.small.release()
    envelope = submitted(run.small, run.small.signed(release))

    tick = ticked(run)

    (request,) = tick.run_requests or ()
    assert request.run_key == f"sha256:{envelope.stem}"
    assert request.partition_key == PRODUCT
    assert request.run_config == {"ops": {"promotion": {"config": {"release": release.digest}}}}
    (event,) = tick.asset_events
    assert event.asset_key.to_user_string() == "release/approval"
    assert event.metadata["principal"].value == "alice"
    assert not envelope.exists()
    made = run.instance.create_run_for_job(jobless, tags=request.tags)
    waiting = ticked(run, tick.cursor)
    assert (waiting.run_requests, waiting.asset_events) == ([], [])

    run.instance.report_run_failed(made, "the code server could not be reached")
    (again,) = ticked(run, waiting.cursor).run_requests or ()
    assert again.run_key == f"{request.run_key} 1", "it never started"
    made = run.instance.create_run_for_job(jobless, tags=again.tags, status=dg.DagsterRunStatus.STARTING)
    run.instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, jobless.name), made.run_id)
    run.instance.report_run_failed(made, "the canary failed")
    assert not ticked(run, waiting.cursor).run_requests, "it started, and failed by itself"


def test_a_crash_between_accepting_and_asking_loses_no_promotion(run: Runner) -> None:
    """The cursor was not saved: the next tick asks again under the same run key, which Dagster starts once."""
    submitted(run.small, run.small.signed(run.small.release()))
    lost = ticked(run)

    again = ticked(run)

    assert [r.run_key for r in again.run_requests or ()] == [r.run_key for r in lost.run_requests or ()] != []


def test_a_refused_approval_is_reported_once_and_set_aside(run: Runner) -> None:
    release = run.small.release()
    for_other = run.small.signed(release, weights="sha256:" + "1" * 64)
    envelope = submitted(run.small, for_other)
    (envelope.parent / "junk.json").write_text("{}")

    first = ticked(run)
    second = ticked(run, first.cursor)

    assert not first.run_requests
    reasons = sorted(str(event.metadata["reason"].value) for event in first.asset_events)
    assert "cannot be read" in reasons[0]
    assert "for something else than release" in reasons[1]
    assert second.asset_events == []
    assert list(envelope.parent.glob("*.json")) == []


def test_one_refused_approval_does_not_hold_up_another(run: Runner) -> None:
    release = run.small.release()
    submitted(run.small, run.small.signed(release, weights="sha256:" + "1" * 64))
    submitted(run.small, run.small.signed(release, "bob"))

    assert len(ticked(run).run_requests or ()) == 1


def test_a_rejection_starts_nothing(run: Runner) -> None:
    refusal = run.small.signed(run.small.release(), decision="reject", reason="refunds without an invoice")
    submit(run.small.parts, refusal.release, refusal.statement, refusal.signature, "alice", refusal.reason)

    assert not ticked(run).run_requests


def test_two_signatures_where_two_are_needed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    run = Runner(SmallLine(tmp_path / "strict", PRODUCT, signatures=2), instance)
    release = run.small.release()
    submitted(run.small, run.small.signed(release, "alice"))
    first = ticked(run)
    submitted(run.small, run.small.signed(release, "bob"))

    assert not first.run_requests
    assert len(ticked(run, first.cursor).run_requests or ()) == 1


def test_promotion_shows_challenger_canary_and_champion(run: Runner, says: dict[str, str]) -> None:
    release = run.small.release()
    run.small.approve(release)

    result = promoted(run, release)

    assert result.success
    assert sorted(materialized(result)) == ["release/champion", "serving/canary", "serving/challenger"]
    assert live(run.small) == release.digest
    assert promoted(run, release).success, "doing it again changes nothing"
    assert [r.event for r in run.small.parts.log.records()].count("promotion.recorded") == 1


def test_without_approval_nothing_is_served(run: Runner, says: dict[str, str]) -> None:
    result = promoted(run, run.small.release())

    assert "0 of 1 signatures" in reason(result)
    assert materialized(result) == []
    assert live(run.small) is None


def test_a_failed_canary_is_shown_and_keeps_the_champion(run: Runner, says: dict[str, str]) -> None:
    release = run.small.release()
    run.small.approve(release)
    says["text"] = "not JSON"

    result = promoted(run, release)

    assert "the canary failed" in reason(result)
    (shown,) = run.instance.fetch_materializations(serving.CANARY, limit=5).records
    assert shown.asset_materialization is not None
    assert shown.asset_materialization.metadata["outcome"].value == "fail"
    assert not run.instance.fetch_materializations(serving.CHAMPION, limit=5).records
    assert live(run.small) is None


def test_what_serves_follows_what_was_recorded(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    live_release = run.small.live()
    run.small.registry.aliases.clear()
    context = dg.build_sensor_context(instance=run.instance, resources={"line": run.small.parts})

    told = reconciliation(context).skip_message

    assert "registry alias" in told
    assert run.small.parts.registry.alias(PRODUCT, "champion") == live_release.digest
    assert reconciliation(context).skip_message == "what serves is what was recorded"
