"""A run that nobody looks at and that failed is in the audit log, once, without what its error says."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dagster as dg
import pytest

from data_contracts.errors import BadInput
from pipelines.automation.causes import CAUSE, TRIES
from pipelines.automation.failures import failures
from tests.assets.conftest import PRODUCT, Runner

RELEASE = "sha256:" + "ab" * 32


@dg.job(name="line")
def idle() -> None:
    pass


def nothing() -> None:
    pass


def look(
    run: Runner, job: str, cause: str = "retrain sha256:1", times: int = 1, before: Callable[[], object] = nothing
) -> list[dict[str, Any]]:
    """What is recorded of a run of ``job`` that failed after ``before``; the sensor looks so many times."""

    @dg.op(config_schema=dg.Permissive())
    def promotion() -> None:
        before()
        try:
            raise BadInput("row 7: 'Ann' is no date")
        except BadInput as error:
            raise RuntimeError("the step failed") from error

    @dg.job(name=job)
    def failing() -> None:
        promotion()

    done = failing.execute_in_process(
        {"ops": {"promotion": {"config": {"release": RELEASE}}}},
        instance=run.instance,
        tags={"dagster/partition": PRODUCT} | ({CAUSE: cause} if cause else {}),
        raise_on_error=False,
    )
    assert not done.success
    for _ in range(times):
        seen(run, done.get_run_failure_event(), done.run_id)
    return bodies(run)


def seen(run: Runner, event: dg.DagsterEvent, failed: str) -> None:
    found = run.instance.get_run_by_id(failed)
    assert found is not None
    resources = {"line": run.small.parts}
    context = dg.build_run_status_sensor_context("failures", event, run.instance, found, resources=resources)
    failures(context.for_run_failure())


def bodies(run: Runner) -> list[dict[str, Any]]:
    return [record.body for record in run.small.parts.log.records() if record.event == "run.failed"]


def test_a_failed_run_is_recorded_once_with_its_step_and_the_error_at_the_bottom(run: Runner) -> None:
    (body,) = look(run, "line", times=2)
    assert (body["job"], body["step"], body["error"]) == ("line", "promotion", "BadInput")
    assert body["cause"] == "retrain sha256:1"
    assert "Ann" not in str(body)


def test_a_run_that_never_started_is_recorded_when_it_is_given_up(run: Runner) -> None:
    recorded = []
    for _ in range(TRIES):
        lost = run.instance.create_run_for_job(idle, tags={"dagster/partition": PRODUCT, CAUSE: "retrain sha256:2"})
        run.instance.report_run_failed(lost)
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, "line")
        seen(run, event, lost.run_id)
        recorded.append(len(bodies(run)))
    assert recorded == [0] * (TRIES - 1) + [1]
    assert (bodies(run)[0]["step"], bodies(run)[0]["error"]) == ("", "")


def test_a_run_that_a_person_started_is_theirs_to_look_at(run: Runner) -> None:
    assert look(run, "line", cause="") == []


@pytest.mark.parametrize(("release", "recorded"), [(RELEASE, 0), ("sha256:" + "cd" * 32, 1)])
def test_a_failed_canary_is_not_told_twice(run: Runner, release: str, recorded: int) -> None:
    body = {"release": release, "outcome": "fail"}
    append = partial(run.small.parts.log.append, "canary.recorded", PRODUCT, body, actor="test")
    append()  # of an earlier promotion
    assert len(look(run, "promote", before=append)) == recorded
    assert len(look(run, "promote")) == recorded + 1
