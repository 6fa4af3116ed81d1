"""The project's sensors and schedules over jobs that only note that they were started, to be killed at any moment.

``python -m tests.support.ticks HOME`` is a daemon that ticks when it is told to: each line of its input is one `Order`,
carried out by a fork that may die of it; each line of its output says how the fork ended.
"""

import copy
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

import pipelines.definitions
from assets.groups import PRODUCTS
from pipelines.automation.causes import CAUSE
from pipelines.recipes.product import ROOT
from pipelines.wiring import Line
from resources.programs import prepare_dagster_home
from tests.support.line import FakeServer, SmallLine
from tests.support.registry import FakeRegistry

SENSOR_POINTS = ("TICK_CREATED", "TICK_HELD", "RUN_IDS_RESERVED", "RUN_CREATED", "RUN_LAUNCHED")
SCHEDULE_POINTS = ("TICK_CREATED", "TICK_HELD", "RUN_CREATED", "RUN_LAUNCHED", "RUN_ADDED", "TICK_SUCCESS")
"""Where Dagster lets its own tests kill a tick: before anything was asked for, between a run and its record, after."""
JOBS = ("line", "promote", "signals", "erase", "expire_traces")


class Order(NamedTuple):
    """What the daemon does about runs, once: it looks at those there are and ticks each sensor and schedule. It is
    ``now`` for the schedules; ``who`` dies at ``point``."""

    now: float
    who: str = ""
    point: str = ""


def stub(job: str) -> dg.JobDefinition:
    """A job of this name that notes its run and its run key in HOME/started."""

    @dg.op(name="promotion" if job == "promote" else f"{job}_step", config_schema=dg.Permissive())
    def work(context: dg.OpExecutionContext) -> None:
        line = Line()
        key = context.run.tags.get(CAUSE, "")
        with (line.home / "started").open("a") as started:
            started.write(f"{job}\t{context.run_id}\t{key}\n")
        if job == "erase":
            for path in (line.home / "erasure" / "queue").glob("*.json"):
                path.unlink()

    @dg.job(name=job, partitions_def=PRODUCTS if job in ("line", "promote", "signals") else None)
    def made() -> None:
        work()

    return made


@dg.definitions
def definitions() -> dg.Definitions:
    real = pipelines.definitions.definitions()
    stubs = {job: stub(job) for job in JOBS}
    line = Line()
    line.__dict__.update(server=FakeServer(), registry=FakeRegistry())
    return dg.Definitions(
        jobs=list(stubs.values()),
        sensors=[_quick(each, stubs) for each in real.sensors or ()],
        schedules=[_quick(each, stubs) for each in real.schedules or ()],
        resources={"line": line},
        executor=dg.in_process_executor,
    )


def _quick(each: Any, stubs: dict[str, dg.JobDefinition]) -> Any:
    """The same one over its stub; a sensor ticks every second, a schedule every minute."""
    if isinstance(each, dg.ScheduleDefinition):
        found: Any = each.with_updated_job(stubs[each.job_name])
        found._cron_schedule = "* * * * *"
        return found
    found = each.with_updated_job(stubs[each.job_name]) if each.has_jobs else copy.copy(each)
    found._min_interval = 1
    return found


class TickingDaemon:
    """The program below. ``settings`` are those of `pipelines.settings.Settings`."""

    def __init__(self, settings: dict[str, str]) -> None:
        home = Path(settings["home"])
        dagster_home(home)
        with (home / "ticks.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.ticks"],
                cwd=ROOT,
                env=environment_of(settings),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def tick(self, order: Order) -> int:
        """How it ended: 0, or minus the signal that it died of."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=60)


@contextmanager
def real_daemon(line: SmallLine) -> "Iterator[subprocess.Popen[bytes]]":
    """Dagster's own, with a code server of its own; killed in the end. Runs that it started go on."""
    home = line.parts.home
    dagster_home(home)
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", __name__, "-d", str(ROOT)]
    with (home / "daemon.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment_of(settings_of(line)), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def settings_of(line: SmallLine) -> dict[str, str]:
    settings = line.parts.settings
    return {"home": str(settings.home), "trust_root": str(settings.trust_root), "products": str(settings.products)}


def dagster_home(home: Path) -> Path:
    """The instance as `assay up` makes it."""
    prepare_dagster_home(home)
    return home / "dagster"


def environment_of(settings: dict[str, str]) -> dict[str, str]:
    named = {f"ASSAY_{name.upper()}": value for name, value in settings.items()}
    return {**os.environ, **named, "DAGSTER_HOME": str(Path(settings["home"]) / "dagster")}


def _tick(order: Order) -> None:
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
    from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
    from dagster._daemon.sensor import execute_sensor_iteration
    from dagster._scheduler.scheduler import launch_scheduled_runs

    target = LoadableTargetOrigin(module_name=__name__, attribute="definitions")
    origin = InProcessCodeLocationOrigin(target, location_name="assay")
    crash: Any = {order.who: {order.point: 9}} if order.who else None
    logger = logging.getLogger("ticks")
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as context,
    ):
        assert "assay" in {each.name for each in context.create_request_context().code_locations}
        now = datetime.fromtimestamp(order.now, UTC)
        errors = [*execute_run_monitoring_iteration(context, logger)]
        errors += [*execute_sensor_iteration(context, logger, None, None, debug_crash_flags=crash)]
        errors += [*launch_scheduled_runs(context, logger, now, {}, debug_crash_flags=crash)]
    for error in errors:
        if error:
            print(error, file=sys.stderr)
    sys.exit(1 if any(errors) else 0)


def main() -> None:
    for text in sys.stdin:
        order = Order(*json.loads(text))
        time.sleep(1.1)  # the sensors' interval
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr
            _tick(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
