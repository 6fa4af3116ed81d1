"""The real trainer behind Dagster Pipes: its progress is in the run's log, and it does not outlive its worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from filelock import FileLock

from data_contracts.errors import Refused
from pipelines.recipes.product import ROOT
from pipelines.settings import Settings
from pipelines.stages.train.job import RunFiles, TrainResult
from pipelines.wiring import Line
from resources.dagster import PipesLauncher
from tests.support.tiny import make_tiny_base
from tests.support.training import make_job, make_recipe

# Dagster's own Pipes session reads a property that Dagster marks as a preview.
pytestmark = pytest.mark.filterwarnings("ignore:.*expected_writer_count:Warning")

WORKER = "import sys; from pathlib import Path; from resources.trainer_launcher import SubprocessLauncher as L; "
WORKER += "L().launch(Path(sys.argv[1]), Path(sys.argv[1]).parent)"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def launching(job: Path) -> dg.AssetsDefinition:
    line = Line(Settings(home=job.parent / "home", launcher="subprocess"))

    @dg.asset
    def training(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        PipesLauncher(context, line.launcher).launch(job, job.parent)
        return dg.MaterializeResult()

    return training


def test_progress_and_loss_are_in_the_runs_log(tmp_path: Path, base: Path, instance: dg.DagsterInstance) -> None:
    job = make_job(tmp_path, base, make_recipe())

    result = dg.materialize([launching(job)], instance=instance)

    assert result.success
    assert TrainResult.model_validate_json(RunFiles(tmp_path).result.read_bytes()).step in (3, 6)
    told = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert any(line.startswith("sft step 6/6") and "validation loss" in line for line in told), told


def test_a_trainer_that_refuses_fails_the_run_with_its_reason(
    tmp_path: Path, base: Path, instance: dg.DagsterInstance
) -> None:
    job = make_job(tmp_path, base, make_recipe(max_length=16))

    with pytest.raises(Refused, match="16"):
        dg.materialize([launching(job)], instance=instance)


def test_killing_the_worker_stops_the_trainer(tmp_path: Path, base: Path) -> None:
    job = make_job(tmp_path, base, make_recipe(sft={"steps": 3000, "eval_every": 3000, "checkpoint_every": 1000}))
    files = RunFiles(tmp_path)
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(job)], cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not files.metrics.exists():
            assert worker.poll() is None, (tmp_path / "worker.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()

    with FileLock(files.lock, timeout=60):
        assert not files.result.exists()
    assert "stopped; the same command goes on" in (tmp_path / "worker.log").read_text()
