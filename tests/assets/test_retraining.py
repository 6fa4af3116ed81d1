"""Only a recorded decision to retrain starts the line, and starts it once."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import yaml

from assets import signals
from assets.groups import PRODUCTS
from pipelines.automation.retraining import drift_check, retraining
from pipelines.stages.signals.adjudication import decide
from pipelines.stages.signals.drift import DriftReport
from pipelines.stages.signals.freeze import freeze_file
from pipelines.stages.signals.policy import POLICY, load_policy
from pipelines.stages.signals.retrain_decision import newest_decision
from tests.assets.conftest import PRODUCT, Runner
from tests.support.feedback import make_exchange, make_feedback
from tests.support.line import SmallLine
from tests.unit.signals.test_drift import answers

SIGNALS = [signals.traces, signals.exchanges, signals.judged, signals.drift, signals.retrain_decision]


def answered(small: SmallLine, release: str, count: int, day: int, tool: str | None) -> None:
    for trace in answers(count, day, [tool]):
        small.parts.traces.add(trace.model_copy(update={"product": PRODUCT, "release": release}))
    small.parts.traces.flush()


def due(run: Runner, now: datetime | None = None) -> list[str]:
    """Products that the schedule would look at now. A tick that is repeated asks for the same runs."""
    context = dg.build_schedule_context(
        instance=run.instance,
        resources={"line": run.small.parts},
        scheduled_execution_time=now or datetime.now(UTC),
    )
    found, again = drift_check(context), drift_check(context)
    if isinstance(found, dg.SkipReason):
        return []
    assert isinstance(again, list)
    keys = [request.run_key for request in found]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert keys == [request.run_key for request in again]
    return [str(request.partition_key) for request in found]


def decided(run: Runner) -> list[str | None]:
    """Run keys that the sensor asks for, from its beginning."""
    context = dg.build_sensor_context(instance=run.instance, resources={"line": run.small.parts})
    return [request.run_key for request in retraining(context).run_requests or ()]


def test_a_shift_that_lasts_retrains_once(run: Runner) -> None:
    policy = load_policy()
    release = run.small.live().digest
    answered(run.small, release, policy.window, 0, "get_invoice")
    assert due(run) == [PRODUCT]
    assert run(SIGNALS).success
    assert decided(run) == []
    assert due(run) == [], "nothing new since"

    answered(run.small, release, policy.window * policy.windows, 10, "issue_refund")
    assert due(run) == [PRODUCT]
    assert run(SIGNALS).success
    assert run(SIGNALS).success

    (key,) = decided(run)
    assert key is not None
    assert key.startswith("retrain sha256:")


def test_a_frozen_retraining_starts_when_the_freeze_is_over(run: Runner) -> None:
    policy = load_policy()
    release = run.small.live().digest
    answered(run.small, release, policy.window, 0, "get_invoice")
    answered(run.small, release, policy.window * policy.windows, 10, "issue_refund")
    calendar = freeze_file(run.small.parts.home)
    now = datetime.now(UTC)
    window = {
        "owner": "ada",
        "reason": "end of the quarter",
        "begins": (now - timedelta(hours=1)).isoformat(),
        "ends": (now + timedelta(hours=1)).isoformat(),
    }
    calendar.write_text(yaml.safe_dump({"windows": [window]}))
    assert run(SIGNALS).success
    assert decided(run) == [], "frozen"
    held = newest_decision(run.small.parts.log.records(), PRODUCT)
    assert held is not None
    assert (held.body["decision"], held.body["held_by"]) == ("hold", "freeze")
    assert due(run, now) == []
    assert due(run, now + timedelta(hours=2)) == [PRODUCT], "the freeze is over by then"

    calendar.unlink()
    assert due(run) == [PRODUCT]
    assert run(SIGNALS).success
    assert len(decided(run)) == 1
    assert due(run) == []


def test_a_retraining_waits_for_whoever_looks_at_the_corrections_that_it_would_learn_from(run: Runner) -> None:
    parts, policy = run.small.parts, load_policy()
    release = run.small.live().digest
    path = parts.settings.products / f"{PRODUCT}.yaml"
    values = yaml.safe_load(path.read_text())
    source = {"url": f"feedback://{PRODUCT}?kind=sft", "contract": "feedback-conversations"}
    path.write_text(yaml.safe_dump(values | {"sources": [*values["sources"], source]}))
    answered(run.small, release, policy.window, 0, "get_invoice")
    answered(run.small, release, policy.window * policy.windows, 10, "issue_refund")
    for name, trace in (("f1", "t1"), ("f2", "t2")):
        parts.feedback.add(make_feedback(name, product=PRODUCT, trace_id=trace, correction="On the 2nd."))
        parts.feedback.add_exchange(make_exchange(trace, product=PRODUCT, subject="ann"))
    assert parts.feedback.flush()
    assert run(SIGNALS).success
    assert decided(run) == [], "nobody has looked at them"
    held = newest_decision(parts.log.records(), PRODUCT)
    assert held is not None
    assert (held.body["decision"], held.body["held_by"]) == ("hold", "adjudication")
    decide(parts, PRODUCT, "f1", True, "checked", "cli:bea")
    assert due(run) == [], "one waits"
    decide(parts, PRODUCT, "f2", False, "the answer was right", "cli:bea")
    assert due(run) == [PRODUCT]
    assert run(SIGNALS).success
    assert len(decided(run)) == 1


def test_a_policy_of_ones_own_says_how_much_is_looked_at_and_when(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "signals.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(POLICY.read_text()) | {"window": 24, "check": "* * * * *"}))
    run.small.parts.settings = run.small.parts.settings.model_copy(update={"signals": path})
    release = run.small.live().digest
    answered(run.small, release, 24, 0, "get_invoice")
    assert run(SIGNALS).success
    assert due(run) == [], "nothing new since"
    answered(run.small, release, 24, 1, "get_invoice")
    assert due(run) == [PRODUCT], "a whole window of the policy"
    assert run(SIGNALS).success
    newest = newest_decision(run.small.parts.log.records(), PRODUCT)
    assert newest is not None
    report = run.small.parts.store.get_manifest(str(newest.body["drift"]), DriftReport)
    assert report.policy == load_policy(path).digest
    code = "from pipelines.automation.retraining import drift_check; print(drift_check.cron_schedule)"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"ASSAY_SIGNALS": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "* * * * *"


def test_stable_traffic_starts_nothing(run: Runner) -> None:
    policy = load_policy()
    release = run.small.live().digest
    for day in range(policy.windows + 1):
        answered(run.small, release, policy.window, day, "get_invoice")

    assert run(SIGNALS).success
    assert decided(run) == []


def test_the_effort_of_retraining_is_what_real_trainings_took(run: Runner) -> None:
    """A run of hits says nothing about it."""

    @dg.asset(key=["model", "sft"], partitions_def=PRODUCTS)
    def trained() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"hit": False})

    @dg.asset(key=["model", "sft"], partitions_def=PRODUCTS)
    def remembered() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"hit": True})

    run([remembered])
    assert signals.past_training_seconds(run.instance, PRODUCT) == []
    run([trained])
    (seconds,) = signals.past_training_seconds(run.instance, PRODUCT)
    assert 0 <= seconds < timedelta(minutes=5).total_seconds()
