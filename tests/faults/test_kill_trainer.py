"""SIGKILL at any moment, run again: the final weights are bit-identical to those of an uninterrupted run."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.digests import Digest
from pipelines.stages.train.checkpoints import SEAL, Checkpoints
from pipelines.stages.train.job import RunFiles
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, finish, reached, sealed
from tests.support.training import make_job, make_recipe

# Twelve steps over ten rows: the run crosses two epochs, and dropout draws random numbers at every step.
RECIPE = make_recipe(sft={"steps": 12, "checkpoint_every": 3, "eval_every": 4})


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Digest:
    return finish(make_job(tmp_path_factory.mktemp("whole"), tiny_base, RECIPE))


@pytest.mark.parametrize("checkpoint", [3, 9])
def test_killed_after_a_checkpoint(tmp_path: Path, tiny_base: Path, uninterrupted: Digest, checkpoint: int) -> None:
    job = make_job(tmp_path, tiny_base, RECIPE)
    assert Trainer(job).signal_when(signal.SIGKILL, sealed(job, checkpoint)) == -signal.SIGKILL
    assert finish(job) == uninterrupted
    assert "resuming from step-" in (tmp_path / "trainer.log").read_text()


@pytest.mark.parametrize("checkpoint", [3, 9])
def test_killed_while_a_checkpoint_is_written(
    tmp_path: Path, tiny_base: Path, uninterrupted: Digest, checkpoint: int
) -> None:
    job = make_job(tmp_path, tiny_base, RECIPE)
    part = RunFiles(tmp_path).checkpoints / f"step-{checkpoint}"
    assert Trainer(job).signal_when(signal.SIGKILL, part.exists) == -signal.SIGKILL
    assert finish(job) == uninterrupted


def test_killed_at_random_moments_again_and_again(tmp_path: Path, tiny_base: Path, uninterrupted: Digest) -> None:
    job = make_job(tmp_path, tiny_base, RECIPE)
    draw = random.Random(2)
    for _ in range(4):
        Trainer(job).signal_when(signal.SIGKILL, _after(draw.uniform(0.5, 4.0)))
    assert finish(job) == uninterrupted


@pytest.mark.parametrize("damage", ["cut", "flipped", "unsealed"])
def test_a_damaged_newest_checkpoint_is_passed_over(
    tmp_path: Path, tiny_base: Path, uninterrupted: Digest, damage: str
) -> None:
    job = make_job(tmp_path, tiny_base, RECIPE)
    assert Trainer(job).signal_when(signal.SIGKILL, sealed(job, 6)) == -signal.SIGKILL
    newest = RunFiles(tmp_path).checkpoints / "step-6"
    victim = newest / (SEAL if damage == "unsealed" else "optimizer.pt")
    content = victim.read_bytes()
    if damage == "unsealed":
        victim.unlink()
    else:
        half = len(content) // 2
        victim.write_bytes(
            content[:half] + (b"" if damage == "cut" else bytes([content[half] ^ 1]) + content[half + 1 :])
        )
    assert finish(job) == uninterrupted
    assert f"checkpoint {newest.name} is damaged" in (tmp_path / "trainer.log").read_text()


def test_told_to_stop_it_leaves_a_checkpoint_of_that_very_step(
    tmp_path: Path, tiny_base: Path, uninterrupted: Digest
) -> None:
    job = make_job(tmp_path, tiny_base, RECIPE)
    assert Trainer(job).signal_when(signal.SIGTERM, reached(job, 4)) == 75
    assert Checkpoints(str(RunFiles(tmp_path).checkpoints)).steps()[0] in {5, 6}
    assert finish(job) == uninterrupted


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
