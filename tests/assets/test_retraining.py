"""Only a recorded decision to retrain starts the line, and starts it once."""

from datetime import timedelta

import dagster as dg

from assets import signals
from assets.groups import PRODUCTS
from pipelines.automation.retraining import drift_check, retraining
from pipelines.stages.signals.policy import load_policy
from tests.assets.conftest import PRODUCT, Runner
from tests.support.line import SmallLine
from tests.unit.signals.test_drift import answers

SIGNALS = [signals.traces, signals.drift, signals.retrain_decision]


def answered(small: SmallLine, release: str, count: int, day: int, tool: str | None) -> None:
    for trace in answers(count, day, [tool]):
        small.parts.traces.add(trace.model_copy(update={"product": PRODUCT, "release": release}))
    small.parts.traces.flush()


def due(run: Runner) -> list[str]:
    """Products that the schedule would look at now."""
    context = dg.build_schedule_context(instance=run.instance, resources={"line": run.small.parts})
    found = drift_check(context)
    return [] if isinstance(found, dg.SkipReason) else [str(request.partition_key) for request in found]


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
