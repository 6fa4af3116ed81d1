"""What waits to be erased starts one job at a time, until it is done."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType

from pipelines.automation.erasure import erase, erasures
from pipelines.stages.signals import erasure
from pipelines.stages.signals.erasure_queue import submit
from tests.assets.conftest import PRODUCT
from tests.support.crash import PowerLoss, fails
from tests.support.erasing import MARK, PERSON, REASON, ErasingLine
from tests.support.search import traces_of


@pytest.fixture
def line(tmp_path: Path) -> ErasingLine:
    return ErasingLine(tmp_path / "line", PRODUCT)


def test_a_request_is_worked_off_by_the_job_and_then_nothing_waits(
    line: ErasingLine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = dg.build_sensor_context(instance=instance, resources={"line": line.parts})
    assert isinstance(erasures(context), dg.SkipReason)
    submit(line.parts, line.subject, REASON)
    assert isinstance(erasures(context), dg.RunRequest)
    under_way = instance.create_run_for_job(erase, status=dg.DagsterRunStatus.STARTED)
    assert isinstance(erasures(context), dg.SkipReason), "one at a time"
    instance.report_run_failed(under_way)
    with monkeypatch.context() as crash:
        fails(crash, erasure, "reconcile", 1)
        with pytest.raises(PowerLoss):
            erase.execute_in_process(instance=instance, resources={"line": line.parts})
    assert isinstance(erasures(context), dg.RunRequest), "what a crash left is not given up"
    assert erase.execute_in_process(instance=instance, resources={"line": line.parts}).success
    assert isinstance(erasures(context), dg.SkipReason)
    assert traces_of(line.parts.home, MARK) == traces_of(line.parts.home, PERSON) == []


def test_an_erasure_that_died_with_its_machine_is_not_waited_for(
    line: ErasingLine, instance: dg.DagsterInstance
) -> None:
    """Dagster calls its run started for ever; the lock says that nobody erases."""
    context = dg.build_sensor_context(instance=instance, resources={"line": line.parts})
    submit(line.parts, line.subject, REASON)
    began = datetime.now(UTC) - timedelta(minutes=6)
    run = instance.create_run_for_job(erase, status=dg.DagsterRunStatus.STARTING)
    started = DagsterEvent(DagsterEventType.RUN_START.value, erase.name)
    instance.report_dagster_event(started, run.run_id, timestamp=began.timestamp())
    with line.parts.locks.hold("erasure"):
        assert isinstance(erasures(context), dg.SkipReason)
    assert isinstance(erasures(context), dg.RunRequest)
