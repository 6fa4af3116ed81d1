"""Checkpoints where the disk fills, the grace period ends, the machine is lost; and twenty kills at random moments."""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from data_contracts.digests import Digest
from pipelines.stages.train.checkpoints import SEAL, Checkpoints
from pipelines.stages.train.job import STOPPED, RunFiles
from tests.support import poison
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, finish, reached
from tests.support.training import make_job, make_recipe

STEPS = 12
SCHEDULE = {"steps": STEPS, "checkpoint_every": 2, "eval_every": 4}
RECIPE = make_recipe(sft=SCHEDULE, dpo=SCHEDULE)


class Runs:
    """An SFT run and a DPO run on top of it that nothing interrupted."""

    def __init__(self, folder: Path) -> None:
        self.base = make_tiny_base(folder / "tiny")
        self.sft = finish(make_job(folder / "sft", self.base, RECIPE))
        self.parent = RunFiles(folder / "sft").weights
        self.dpo = finish(make_job(folder / "dpo", self.base, RECIPE, self.parent))

    def job(self, folder: Path, stage: str) -> tuple[Path, Digest]:
        """A job of the stage, and what it must end with."""
        if stage == "sft":
            return make_job(folder, self.base, RECIPE), self.sft
        return make_job(folder, self.base, RECIPE, self.parent), self.dpo


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("whole"))


def test_a_full_disk_ends_the_run_with_one_clear_error_and_room_is_all_it_takes(tmp_path: Path, runs: Runs) -> None:
    job, expected = runs.job(tmp_path, "sft")
    files, kept = RunFiles(tmp_path), Checkpoints(str(RunFiles(tmp_path).checkpoints))
    assert Trainer(job, partial(poison.full_disk, 5, 20_000, files.checkpoints / "step-4" / SEAL)).wait() == 1
    failed = json.loads(files.failed.read_text())
    assert "step-6 was not written" in failed["reason"]
    assert "the disk is full" in failed["reason"]
    assert kept.steps() == [4, 2]
    assert all(kept.is_whole(step) for step in kept.steps())
    assert finish(job) == expected
    assert "resuming from step-4" in (tmp_path / "trainer.log").read_text()


def test_a_step_that_outlasts_the_grace_period_is_left_off(tmp_path: Path, runs: Runs) -> None:
    job, expected = runs.job(tmp_path, "sft")
    trainer = Trainer(job, partial(poison.hangs, 6, 300), ASSAY_GRACE_SECONDS="0.5")
    assert trainer.signal_when(signal.SIGTERM, reached(job, 5)) == STOPPED
    assert "the step did not end in time" in trainer.log.read_text()
    assert finish(job) == expected


def test_a_machine_that_was_lost_leaves_its_checkpoints_in_the_store(tmp_path: Path, runs: Runs) -> None:
    job, expected = runs.job(tmp_path / "run", "sft")
    named = json.loads(job.read_text()) | {"store": f"file://{tmp_path}/store/run"}
    job.write_text(json.dumps(named))
    trainer = Trainer(job)
    assert trainer.signal_when(signal.SIGKILL, reached(job, 7)) == -signal.SIGKILL
    assert not RunFiles(tmp_path / "run").checkpoints.exists()
    shutil.rmtree(tmp_path / "run")
    job, _ = runs.job(tmp_path / "run", "sft")
    job.write_text(json.dumps(named))
    assert finish(job) == expected
    # The one of step 6 may have been in flight, that of step 4 was written before it was taken.
    assert re.search("resuming from step-[46]", trainer.log.read_text())


def test_a_run_whose_store_is_taken_away_keeps_nothing_there(tmp_path: Path, runs: Runs) -> None:
    job, _ = runs.job(tmp_path / "run", "sft")
    store = tmp_path / "store" / "run"
    job.write_text(json.dumps(json.loads(job.read_text()) | {"store": f"file://{store}"}))
    trainer = Trainer(job, partial(poison.hangs, 5, 2))
    while not reached(job, 4)():
        time.sleep(0.01)
    shutil.rmtree(store)
    assert trainer.wait() == 1
    assert "was taken away" in json.loads(RunFiles(tmp_path / "run").failed.read_text())["reason"]
    assert not store.exists()


@pytest.mark.parametrize("seed", [3])
def test_killed_at_a_random_moment_dpo_ends_with_the_same_bytes(tmp_path: Path, runs: Runs, seed: int) -> None:
    _kill_and_finish(tmp_path, runs, "preference", seed)


@pytest.mark.drill
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("stage", ["sft", "preference"])
def test_killed_at_twenty_random_moments(tmp_path: Path, runs: Runs, stage: str, seed: int) -> None:
    _kill_and_finish(tmp_path, runs, stage, 100 + seed)


def _kill_and_finish(folder: Path, runs: Runs, stage: str, seed: int) -> None:
    job, expected = runs.job(folder, stage)
    trainer = Trainer(job)
    trainer.signal_when(signal.SIGKILL, _moment(job, random.Random(seed)))
    assert finish(job) == expected, trainer.log.read_text()


def _moment(job: Path, draw: random.Random) -> Callable[[], bool]:
    """A while after the start; a step; or in the middle of the writing of a checkpoint."""
    kind, step = draw.choice(["time", "step", "write", "write"]), draw.randrange(1, STEPS)
    if kind == "time":
        end = time.monotonic() + draw.uniform(0.5, 4.0)
        return lambda: time.monotonic() > end
    if kind == "step":
        return reached(job, step)
    folder = RunFiles(job.parent).checkpoints / f"step-{step // 2 * 2 or 2}"
    files = draw.randrange(1, 5)
    return lambda: (folder / SEAL).exists() or (folder.exists() and len(list(folder.iterdir())) >= files)
