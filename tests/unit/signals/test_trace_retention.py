"""Old traces go and leave a record of how many; those that somebody may still ask for stay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from data_contracts.traces import Trace
from pipelines.automation.retention import expire_traces
from pipelines.settings import Settings
from pipelines.stages.release.rollback import rollback
from pipelines.stages.release.support_note import support_note
from pipelines.stages.signals.retention import expire, needed_since
from tests.support.line import SmallLine
from tests.support.pieces import NAME
from tests.support.traces import make_shadow, make_trace, release

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=500)


@pytest.fixture
def line(tmp_path: Path) -> SmallLine:
    return SmallLine(tmp_path)


def answered(line: SmallLine, name: str, days_ago: float, product: str = NAME, by: str | None = None) -> Trace:
    trace = make_trace(name, product=product, time=NOW - timedelta(days=days_ago), release=by)
    line.parts.traces.add(trace)
    assert line.parts.traces.flush()
    return trace


def left(line: SmallLine, product: str = NAME) -> list[str]:
    return [each.trace_id for each in line.parts.traces.since(product, NOW - timedelta(days=9999))]


def test_what_is_older_goes_by_product_and_is_counted_in_the_log(line: SmallLine) -> None:
    for days in (401, 402, 399):
        answered(line, f"t{days}", days)
    answered(line, "other", 500, "pricing")
    line.parts.traces.add_shadow(make_shadow("s", product=NAME))
    assert line.parts.traces.flush()
    done = {record.product: record.body for record in expire(line.parts, 400)}
    assert {product: (body["traces"], body["shadows"]) for product, body in done.items()} == {
        NAME: (2, 0 if NOW - timedelta(days=400) < make_shadow("s").time else 1),
        "pricing": (1, 0),
    }
    assert (left(line), left(line, "pricing")) == (["t399"], [])
    assert expire(line.parts, 400) == []
    assert [each.event for each in line.parts.log.records()][-2:] == ["traces.expired"] * 2


def test_what_a_note_for_support_needs_stays_until_the_cause_is_signed(line: SmallLine) -> None:
    answered(line, "before", 0.001)
    bad = line.live().digest
    line.parts.traces.add(make_trace("seen", product=NAME, release=bad, time=datetime.now(UTC)))
    assert line.parts.traces.flush()
    expire(line.parts, 400, LATER)
    assert left(line) == ["seen"], "it is live, and may be rolled back"
    rollback(line.parts, line.product, "wrong refunds", "test")
    expire(line.parts, 400, LATER)
    assert [each.answers for each in support_note(line.parts, line.product).saw] == [1]
    line.explain_rollback()
    (record,) = expire(line.parts, 400, LATER)
    assert (record.body["traces"], left(line)) == (1, [])


def test_what_a_canary_is_judged_by_stays_until_it_is_over(line: SmallLine) -> None:
    log = line.parts.log
    assert needed_since(log.records(), NAME) is None
    began = log.append("canary.begun", NAME, {"release": release("a")}, actor="test")
    assert needed_since(log.records(), NAME) == began.time
    assert needed_since(log.records(), "pricing") is None
    log.append("canary.recorded", NAME, {"release": release("a"), "outcome": "fail"}, actor="test")
    assert needed_since(log.records(), NAME) is None


def test_the_newest_shadowing_can_be_compared_however_old_it_is(line: SmallLine) -> None:
    place = {"release": release("b"), "environment": "production"}
    line.parts.traces.add_shadow(make_shadow("old", product=NAME, time=NOW - timedelta(days=1)))
    line.parts.log.append("shadow.begun", NAME, place, actor="test")
    line.parts.traces.add_shadow(make_shadow("new", product=NAME, time=datetime.now(UTC)))
    assert line.parts.traces.flush()
    expire(line.parts, 400, LATER)
    assert [each.trace_id for each in line.parts.traces.shadows(NAME, NOW - timedelta(days=9))] == ["new"]


def test_the_job_goes_by_the_setting(line: SmallLine) -> None:
    assert Settings.model_fields["traces_days"].default == 400
    answered(line, "old", 401)
    answered(line, "young", 399)
    with dg.DagsterInstance.ephemeral() as instance:
        assert expire_traces.execute_in_process(resources={"line": line.parts}, instance=instance).success
    assert left(line) == ["young"]
