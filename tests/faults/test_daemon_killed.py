"""Dagster's daemon dies in the midst of ticks: no run is asked for twice for one cause, and none is forgotten."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus as Status
from dagster._core.storage.tags import SCHEDULED_EXECUTION_TIME_TAG

from data_contracts.digests import sha256_json
from pipelines.automation.causes import CAUSE
from pipelines.definitions import definitions
from pipelines.stages import inbox
from pipelines.stages.release import approval
from pipelines.stages.signals.erasure_queue import ErasureRequest
from tests.support.line import SmallLine
from tests.support.ticks import (
    SCHEDULE_POINTS,
    SENSOR_POINTS,
    Order,
    TickingDaemon,
    dagster_home,
    real_daemon,
    settings_of,
)

PRODUCT = "billing-assistant"
SEED = 7
POINTS = [
    *((sensor, point) for sensor in ("approvals", "erasures", "retraining") for point in SENSOR_POINTS),
    *((schedule, point) for schedule in ("drift_check", "trace_retention") for point in SCHEDULE_POINTS),
]


class Causes:
    """What the sensors look for, laid in; and the runs that there are of each cause."""

    def __init__(self, folder: Path) -> None:
        self.line = SmallLine(folder, PRODUCT)
        self.release = self.line.release()
        self.home = self.line.parts.home
        self.keys: list[str] = []
        self.hours = 1.0

    def lay_in(self) -> None:
        """One of each: a decision to retrain, an approval, a request to erase, after the run that erased before."""
        parts = self.line.parts
        with self.instance() as instance:
            for run in instance.get_runs(dg.RunsFilter(job_name="erase", statuses=[Status.QUEUED])):
                instance.report_run_canceled(run)
        decided = parts.log.append("retrain.decided", PRODUCT, {"decision": "retrain"}, actor="test")
        self.hours += 0.01
        signed = self.line.signed(self.release, hours=self.hours)
        approval.submit(parts, signed.release, signed.statement, signed.signature)
        self.keys += [f"retrain {decided.digest}", signed.digest]
        subject = sha256_json(len(self.keys))[7:39]
        inbox.submit(self.home / "erasure" / "queue", ErasureRequest(subject=subject, reason="asked"))

    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.from_config(str(dagster_home(self.home)))

    def check(self, ticks: int) -> None:
        """Each decision and approval has one run, each minute one of each schedule, the newest request to erase one;
        those that could not start do not count."""
        with self.instance() as instance:
            runs = [run for run in instance.get_runs() if run.status not in (Status.CANCELED, Status.FAILURE)]
        keyed = Counter(run.tags[CAUSE] for run in runs if run.job_name in ("line", "promote"))
        assert keyed == dict.fromkeys(self.keys, 1)
        for job in ("signals", "expire_traces"):
            times = Counter(run.tags[SCHEDULED_EXECUTION_TIME_TAG] for run in runs if run.job_name == job)
            assert set(times.values()) == {1}
            assert len(times) == ticks
        assert [run.job_name for run in runs].count("erase") == 1
        assert {run.status for run in runs} == {Status.QUEUED}


@pytest.fixture
def causes(tmp_path: Path) -> Causes:
    return Causes(tmp_path / "line")


@pytest.fixture
def daemon(causes: Causes) -> Iterator[TickingDaemon]:
    made = TickingDaemon(settings_of(causes.line))
    yield made
    made.close()


def test_every_sensor_and_schedule_that_starts_runs_is_drilled() -> None:
    real = definitions()
    starting = {each.name for each in real.sensors or () if each.targets}
    starting |= {each.name for each in real.schedules or ()}
    assert starting == {name for name, _ in POINTS}


def started(home: Path) -> list[str]:
    """Run keys of processes that began their work; where a run has none, its id."""
    return [key or run for _, run, key in _noted(home)]


def jobs_started(home: Path) -> Counter[str]:
    return Counter(job for job, _, _ in _noted(home))


def _noted(home: Path) -> list[list[str]]:
    path = home / "started"
    return [line.split("\t") for line in path.read_text().splitlines()] if path.exists() else []


SOME = random.Random(SEED).sample(POINTS, 3)


@pytest.mark.parametrize("points", [SOME, pytest.param(POINTS, marks=pytest.mark.drill)], ids=["some", "all"])
def test_a_tick_that_is_killed_is_finished_by_the_next(
    causes: Causes, daemon: TickingDaemon, points: list[tuple[str, str]]
) -> None:
    now = time.time()
    assert daemon.tick(Order(now)) == 0, "nothing to do yet; the schedules begin here"
    for minute, (who, point) in enumerate(points, start=1):
        causes.lay_in()
        assert daemon.tick(Order(now + 60 * minute, who, point)) == -9, f"{who} never came to {point}"
        assert daemon.tick(Order(now + 60 * minute)) == 0
        causes.check(minute)
    assert daemon.tick(Order(now + 60 * len(points))) == 0
    causes.check(len(points))


DRILLED = [pytest.param(who, marks=pytest.mark.drill) for who in ("approvals", "erasures")]


@pytest.mark.parametrize("who", ["retraining", *DRILLED])
def test_a_run_that_could_not_start_in_time_is_started_again(causes: Causes, daemon: TickingDaemon, who: str) -> None:
    """The daemon dies between a run and its submission, and is away for longer than a run may take to start."""
    path = dagster_home(causes.home) / "dagster.yaml"
    path.write_text(path.read_text().replace("run_monitoring:", "run_monitoring:\n  start_timeout_seconds: 1"))
    now = time.time()
    assert daemon.tick(Order(now)) == 0
    causes.lay_in()
    assert daemon.tick(Order(now, who, "RUN_CREATED")) == -9
    time.sleep(1.1)
    assert daemon.tick(Order(now + 60)) == 0
    with causes.instance() as instance:
        assert len(instance.get_runs(dg.RunsFilter(statuses=[Status.FAILURE]))) == 1
    assert daemon.tick(Order(now + 60)) == 0
    causes.check(1)


def test_a_run_that_failed_is_recorded_once_though_the_tick_was_killed(causes: Causes, daemon: TickingDaemon) -> None:
    now = time.time()
    assert daemon.tick(Order(now)) == 0
    causes.lay_in()
    assert daemon.tick(Order(now)) == 0
    with causes.instance() as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=[Status.QUEUED])):
            started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
            instance.report_dagster_event(started, run.run_id)
            instance.report_run_failed(run)
    assert daemon.tick(Order(now, "failures", "TICK_HELD")) == -9
    for _ in range(2):
        assert daemon.tick(Order(now)) == 0
    failed = [record.body for record in causes.line.parts.log.records() if record.event == "run.failed"]
    assert sorted(str(body["cause"]) for body in failed) == sorted(causes.keys)


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_the_real_daemon_is_killed_at_random_moments(causes: Causes) -> None:
    """Every decision and approval starts one process. It is the eighth daemon that has the time to; like any program
    it is started again where it ends by itself."""
    draw = random.Random(SEED)
    for _ in range(7):
        causes.lay_in()
        with real_daemon(causes.line):
            time.sleep(draw.uniform(10, 45))
    causes.lay_in()
    while set(causes.keys) - set(started(causes.home)) or "erase" not in jobs_started(causes.home):
        with real_daemon(causes.line) as daemon:
            while daemon.poll() is None and set(causes.keys) - set(started(causes.home)):
                time.sleep(1)
            time.sleep(30)
    counted = Counter(started(causes.home))
    assert {key: counted[key] for key in causes.keys} == dict.fromkeys(causes.keys, 1)
    assert max(counted.values()) == 1, counted
    print(f"{len(causes.keys)} keyed runs and {jobs_started(causes.home)} in all, each once")
