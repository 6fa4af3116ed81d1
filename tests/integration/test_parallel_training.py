"""Two processes that share each batch: the same curve as one, decisions taken by both, and none left behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from data_contracts.records import ChatExample, Message
from pipelines.recipes.product import ROOT
from pipelines.stages.train.checkpoints import Checkpoints
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob, TrainResult
from resources.trainer_launcher import SubprocessLauncher
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, reached, start_ranks, weights_digest
from tests.support.training import make_job, make_recipe, write_rows

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj", "down_proj"]}
TWO = {"processes": 2}
TOLERANCE = 1e-5
"""Of a loss, relative: float32 sums in another order. Stated in docs/training.md."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def _uneven(job_file: Path) -> Path:
    """Give the job answers of 2 to 200 characters: a mean of the processes' means would be far from that of tokens."""
    job = TrainJob.model_validate_json(job_file.read_bytes())
    names = {}
    for split, path in (("train", job.train_rows), ("validation", job.validation_rows)):
        answers = ["ok" if number % 2 else f"answer {number} " * 20 for number in range(12)]
        rows = [
            ChatExample(messages=(Message(role="user", content="q"), Message(role="assistant", content=answer)))
            for answer in answers
        ]
        write_rows(path, rows)
        names[split] = tuple(row.digest for row in rows)
    job_file.write_text(job.model_copy(update={"row_names": names}).model_dump_json())
    return job_file


def _curve(folder: Path) -> tuple[CurvePoint, ...]:
    return TrainResult.model_validate_json(RunFiles(folder).result.read_bytes()).curve


def _assert_same(*both: tuple[CurvePoint, ...]) -> None:
    assert [point.step for point in both[0]] == [point.step for point in both[1]]
    for name, tolerance in (("loss", TOLERANCE), ("validation_loss", TOLERANCE), ("grad_norm", 1e-3)):
        mine, other = ([getattr(point, name) for point in curve if getattr(point, name) is not None] for curve in both)
        assert other == pytest.approx(mine, rel=tolerance), name


def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path, base: Path) -> None:
    """Answers of very different lengths, two batches a step; then DPO from what each left."""
    sft = {"steps": 4, "eval_every": 4, "accumulate": 2, "batch_size": 4, "eval_rows": 8}
    schedules = {"sft": sft, "dpo": {"steps": 2, "eval_every": 2}}
    one, two = make_recipe(lora=LORA, **schedules), make_recipe(lora=LORA, parallel=TWO, **schedules)
    alone = Trainer(_uneven(make_job(tmp_path / "one", base, one)))
    both = start_ranks(_uneven(make_job(tmp_path / "two", base, two)))
    assert [trainer.wait() for trainer in (alone, *both)] == [0, 0, 0], both[0].log.read_text()
    _assert_same(_curve(tmp_path / "one"), _curve(tmp_path / "two"))

    parent = RunFiles(tmp_path / "one").weights
    alone = Trainer(make_job(tmp_path / "one-dpo", base, one, parent))
    both = start_ranks(make_job(tmp_path / "two-dpo", base, two, parent))
    assert [trainer.wait() for trainer in (alone, *both)] == [0, 0, 0], both[0].log.read_text()
    _assert_same(_curve(tmp_path / "one-dpo"), _curve(tmp_path / "two-dpo"))
    # One writer: each point was told once.
    metrics = [json.loads(line) for line in RunFiles(tmp_path / "two-dpo").metrics.read_text().splitlines()]
    assert len({(point["step"], "loss" in point) for point in metrics}) == len(metrics)


RECIPE = make_recipe(parallel=TWO, sft={"steps": 12, "checkpoint_every": 3, "eval_every": 4})


def test_told_to_stop_on_one_rank_both_stop_and_go_on_to_the_same_bytes(tmp_path: Path, base: Path) -> None:
    whole = make_job(tmp_path / "whole", base, RECIPE)
    assert [rank.wait() for rank in start_ranks(whole)] == [0, 0]

    job = make_job(tmp_path / "stopped", base, RECIPE)
    first, second = start_ranks(job)
    assert second.signal_when(signal.SIGTERM, reached(job, 4)) == 0
    assert first.wait() == 75
    checkpoints = Checkpoints(str(RunFiles(job.parent).checkpoints))
    newest = checkpoints.steps()[0]
    assert newest in {5, 6, 7}
    assert checkpoints.is_whole(newest)

    assert [rank.wait() for rank in start_ranks(job)] == [0, 0]
    assert f"resuming from step-{newest}" in first.log.read_text()
    assert weights_digest(job) == weights_digest(whole)


def _no_number_on_rank_1() -> None:
    _on_rank_1_at_step_4("nan")


def _no_memory_on_rank_1() -> None:
    _on_rank_1_at_step_4("memory")


def _on_rank_1_at_step_4(what: str) -> None:
    import os

    from trl import SFTTrainer

    compute = SFTTrainer.compute_loss

    def compute_loss(trainer: SFTTrainer, *args: object, **kwargs: object) -> object:
        loss = compute(trainer, *args, **kwargs)
        if os.environ["RANK"] == "1" and trainer.model.training and trainer.state.global_step == 3:
            if what == "memory":
                raise MemoryError("nothing is left on rank 1")
            loss = loss * float("nan")
        return loss

    SFTTrainer.compute_loss = compute_loss


def test_a_guard_that_trips_on_one_rank_ends_both_with_the_reason(tmp_path: Path, base: Path) -> None:
    ranks = start_ranks(make_job(tmp_path, base, RECIPE), harm=_no_number_on_rank_1)
    assert [rank.wait() for rank in ranks] == [1, 1]
    failed = json.loads(RunFiles(tmp_path).failed.read_text())
    assert (failed["error"], failed["reason"].split(";")[0]) == ("GuardTripped", "step 4: the loss is nan")
    assert Checkpoints(str(RunFiles(tmp_path).checkpoints)).steps() == [3]


def test_a_rank_that_fails_ends_the_other_and_its_reason_is_kept(tmp_path: Path, base: Path) -> None:
    ranks = start_ranks(make_job(tmp_path, base, RECIPE), harm=_no_memory_on_rank_1)
    assert [rank.wait() for rank in ranks] == [1, 1]
    failed = json.loads(RunFiles(tmp_path).failed.read_text())
    assert failed["error"] == "MemoryError"


LONG = make_recipe(parallel=TWO, sft={"steps": 3000, "eval_every": 3000, "checkpoint_every": 1000})


def test_the_program_starts_its_processes_and_takes_them_with_it(tmp_path: Path, base: Path) -> None:
    """Through ``accelerate launch``: a stop is passed on to both, and its exit code comes back."""
    job = make_job(tmp_path, base, LONG)
    trainer = _program(job)
    _await_step(job, trainer)
    trainer.send_signal(signal.SIGTERM)
    assert trainer.wait(60) == 75
    assert _running(job) == []
    checkpoints = Checkpoints(str(RunFiles(tmp_path).checkpoints))
    assert checkpoints.is_whole(checkpoints.steps()[0])


@pytest.mark.drill
def test_killing_the_program_ends_its_processes(tmp_path: Path, base: Path) -> None:
    job = make_job(tmp_path, base, LONG)
    trainer = _program(job)
    _await_step(job, trainer)
    assert len(_running(job)) == 4
    trainer.kill()
    assert trainer.wait() == -signal.SIGKILL
    with FileLock(RunFiles(tmp_path).lock, timeout=60):
        assert not RunFiles(tmp_path).result.exists()
    _await_end(job)
    # Again, and this time only its launcher is killed.
    RunFiles(tmp_path).metrics.unlink()
    trainer = _program(job)
    _await_step(job, trainer)
    (launcher,) = psutil.Process(trainer.pid).children()
    launcher.kill()
    assert trainer.wait(60) == 75
    _await_end(job)


@pytest.mark.drill
def test_a_short_run_through_the_launcher_ends_with_the_same_bytes(tmp_path: Path, base: Path) -> None:
    job, again = make_job(tmp_path / "one", base, RECIPE), make_job(tmp_path / "two", base, RECIPE)
    SubprocessLauncher(environment={"OMP_NUM_THREADS": "1"}).launch(job, job.parent)
    assert [rank.wait() for rank in start_ranks(again)] == [0, 0]
    assert weights_digest(job) == weights_digest(again)


def test_a_second_trainer_is_refused_before_it_starts_processes(tmp_path: Path, base: Path) -> None:
    job = make_job(tmp_path, base, RECIPE)
    with FileLock(RunFiles(tmp_path).lock):
        trainer = Trainer(job)
        assert trainer.wait() == 1
    assert "another trainer is at work" in trainer.log.read_text()


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size 3 must be a multiple of parallel\.processes 2"):
        make_recipe(parallel=TWO, sft={"batch_size": 3})


def _program(job: Path) -> "subprocess.Popen[bytes]":
    with (job.parent / "trainer.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.stages.train.entry", str(job)], cwd=ROOT, stdout=log, stderr=log
        )


def _running(job: Path) -> list[int]:
    return [each.pid for each in psutil.process_iter(["cmdline"]) if str(job) in (each.info["cmdline"] or [])]


def _await_step(job: Path, trainer: "subprocess.Popen[bytes]") -> None:
    metrics, deadline = RunFiles(job.parent).metrics, time.monotonic() + 120
    while not (metrics.exists() and '"loss"' in metrics.read_text()):
        assert trainer.poll() is None, (job.parent / "trainer.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _await_end(job: Path) -> None:
    deadline = time.monotonic() + 60
    while _running(job):
        assert time.monotonic() < deadline, _running(job)
        time.sleep(0.1)
