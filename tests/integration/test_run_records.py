"""Runs of the real trainer leave records, done, tripped, killed, stopped or refused; none of them holds row text."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import AssayError, Refused
from data_contracts.manifests import BaseManifest, CheckpointManifest, Counts, DatasetManifest
from data_contracts.records import ChatExample, Message
from data_contracts.runs import RunRecord
from pipelines.recipes.product import Product, load_product
from pipelines.recipes.recipe import Recipe
from pipelines.settings import Settings
from pipelines.stages.data.item import Item
from pipelines.stages.train import at_hand, estimate, steps
from pipelines.stages.train.entry import main
from pipelines.stages.train.hardware import Machine
from pipelines.stages.train.job import CurvePoint, RunFiles
from pipelines.stages.train.launcher import Ended
from pipelines.stages.train.run_record import settle
from pipelines.wiring import Line
from tests.support.data import ORIGIN
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, finish, reached
from tests.support.training import make_chats, make_job, make_recipe, write_rows

SECRET = "zanzibar harbour 88-41907 lantern"


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


class Launched:
    """A `TrainerLauncher` over the fork server; ``interrupt`` may do something to the trainer first."""

    def __init__(self, interrupt: Any = Trainer.wait) -> None:
        self.interrupt = interrupt

    def launch(self, job_file: Path, run_dir: Path) -> None:
        code = self.interrupt(Trainer(job_file))
        if code != 0:
            raise Ended(f"ended with {code}", code)


class Work:
    """The SFT step of an installation of its own."""

    def __init__(self, folder: Path, base: Path, recipe: Recipe) -> None:
        folder.mkdir(exist_ok=True)
        self.line = Line(Settings(home=folder / "home", trust_root=folder / "trust"))
        (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
        shipped = load_product("billing-assistant")
        self.product = Product.model_validate(shipped.payload() | {"recipe": str(folder / "recipe.yaml")})
        self.base: BaseManifest = steps.base(self.line, self.product, str(base))[0]
        rows = [Item(sha256_bytes(str(number).encode()), "somebody", ORIGIN, "{}") for number in range(10)]
        self.data = DatasetManifest(
            product=self.product.name,
            stage="splits",
            root=self.line.datasets.write(rows).root,
            counts=Counts(rows_in=10, rows_out=10),
            synthetic_share=1,
            action_key=sha256_bytes(b"splits"),
        )
        self.line.store.put_manifest(self.data)

    def sft(self, launcher: Any) -> CheckpointManifest:
        return steps.sft(self.line, self.product, self.base, self.data, launcher)[0]

    def records(self) -> list[RunRecord]:
        return self.line.runs.find()

    def files(self) -> RunFiles:
        (run_dir,) = (self.line.home / "training").iterdir()
        return RunFiles(run_dir)


def write_secret_rows(parts: Any, manifest: DatasetManifest, split: str, path: Path) -> list[Digest]:
    """Rows from this test's hands in place of the data room's, each of which says the secret."""
    said = [Message(role="user", content=f"{SECRET} {number}") for number in range(10)]
    rows = [
        ChatExample(messages=(each, *chat.messages[1:]), tools=chat.tools)
        for each, chat in zip(said, make_chats(10), strict=True)
    ]
    write_rows(path, rows)
    return [row.digest for row in rows]


@pytest.fixture(autouse=True)
def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_hand, "write_training_file", write_secret_rows)


def test_a_run_that_is_done_says_what_it_took(tmp_path: Path, tiny_base: Path) -> None:
    work = Work(tmp_path, tiny_base, make_recipe())
    made = work.sft(Launched())
    (record,) = work.records()
    assert (record.outcome, record.step, record.begun_at, record.rows, record.exit_code) == ("done", 6, 0, 12, 0)
    assert record.action_key == made.action_key
    assert record.hyperparameters["lora"]["rank"] == 4  # type: ignore[index, call-overload]
    assert record.metrics["loss"] == made.metrics["train_loss_last"]
    assert {"loss", "grad_norm", "token_accuracy", "validation_loss"} <= record.metrics.keys()
    assert record.tokens > 0
    assert record.tokens_per_second is not None
    assert record.peak_memory_gb is not None
    assert record.environment["torch_build"]
    assert record.environment["deterministic"] == "true"
    assert "sft step 6/6" in record.log_tail
    assert work.sft(Launched()) == made
    assert len(work.records()) == 1, "a hit starts nothing"


def test_a_tripped_guard_and_a_library_error_are_told_without_row_text(tmp_path: Path, tiny_base: Path) -> None:
    guards = {"max_loss_ratio": 10.0, "window": 4, "max_grad_norm": 1e-9}
    tripped = Work(tmp_path, tiny_base, make_recipe(guards=guards))
    with pytest.raises(Ended):
        tripped.sft(Launched())
    (record,) = tripped.records()
    assert (record.outcome, record.error, record.exit_code) == ("failed", "GuardTripped", 1)
    assert "guards.max_grad_norm" in record.reason
    assert "guards.max_grad_norm" in record.log_tail

    broken = Work(tmp_path / "broken", tiny_base, make_recipe())
    with pytest.raises(Ended):
        broken.sft(Launched(lambda trainer: _quoting(trainer.files.job, trainer)))
    (record,) = broken.records()
    assert (record.outcome, record.error) == ("failed", "ValueError")
    assert "cannot convert" in record.reason
    files = broken.files()
    for text in (record.model_dump_json(), files.failed.read_text(), files.log.read_text(), files.ended.read_text()):
        for word in ("zanzibar", "88-41907", "lantern"):
            assert word not in text
    assert "Traceback" in record.log_tail


def _quoting(job_file: Path, first: Trainer) -> int | None:
    """Instead of the trainer: one whose library quotes a row in its error."""
    first.process.kill()
    first.process.join()
    return _in_a_process(_raise_a_row, job_file)


def _raise_a_row(job_file: Path) -> None:
    from pipelines.stages.train import fit

    def load_model(job: Any) -> None:
        raise ValueError(f"cannot convert {json.loads(job.train_rows.read_text().splitlines()[0])} to a tensor")

    fit.load_model = load_model
    os._exit(main(job_file))


def _in_a_process(work: Any, *given: Path) -> int | None:
    process = multiprocessing.get_context("forkserver").Process(target=work, args=given)
    process.start()
    process.join(120)
    return process.exitcode


def test_a_killed_run_is_recorded_and_the_one_that_goes_on_from_it_too(tmp_path: Path, tiny_base: Path) -> None:
    work = Work(tmp_path, tiny_base, make_recipe(sft={"steps": 12, "checkpoint_every": 3, "eval_every": 6}))
    with pytest.raises(Ended):
        work.sft(Launched(lambda trainer: trainer.signal_when(signal.SIGKILL, reached(trainer.files.job, 8))))
    (killed,) = work.records()
    assert (killed.outcome, killed.exit_code) == ("killed", -signal.SIGKILL)
    assert killed.step in (8, 9)
    assert killed.metrics["loss"] > 0
    with pytest.raises(Ended):
        work.sft(Launched(lambda trainer: trainer.signal_when(signal.SIGTERM, reached(trainer.files.job, 10))))
    stopped = work.records()[0]
    assert (stopped.outcome, stopped.begun_at) == ("stopped", 6)
    work.sft(Launched())
    assert [record.outcome for record in work.records()] == ["done", "stopped", "killed"]
    done = work.records()[0]
    assert done.rows == 2 * (12 - done.begun_at) < 12


def test_a_run_whose_caller_was_killed_too_is_closed_by_the_next_who_looks(tmp_path: Path, tiny_base: Path) -> None:
    assert _in_a_process(_die_with_the_trainer, tmp_path, tiny_base) == -signal.SIGKILL
    work = Work(tmp_path, tiny_base, make_recipe())
    assert [record.outcome for record in work.records()] == ["running"]
    settle(work.line)
    (record,) = work.records()
    assert (record.outcome, record.exit_code) == ("killed", None)
    assert record.step >= 2
    assert SECRET not in record.model_dump_json()
    work.sft(Launched())
    assert [record.outcome for record in work.records()] == ["done", "killed"]


def _die_with_the_trainer(folder: Path, base: Path) -> None:
    """A caller that is killed together with its trainer, and so closes nothing."""

    class Both:
        def launch(self, job_file: Path, run_dir: Path) -> None:
            trainer = os.fork()
            if trainer == 0:
                os._exit(main(job_file))
            while not reached(job_file, 2)():
                time.sleep(0.01)
            os.kill(trainer, signal.SIGKILL)
            os.waitpid(trainer, 0)
            os.kill(os.getpid(), signal.SIGKILL)

    at_hand.write_training_file = write_secret_rows
    Work(folder, base, make_recipe()).sft(Both())


def test_a_launcher_that_cannot_start_it_is_told_apart_from_a_killed_run(tmp_path: Path, tiny_base: Path) -> None:
    class Nowhere:
        def launch(self, job_file: Path, run_dir: Path) -> None:
            raise Refused("the cluster does not answer")

    work = Work(tmp_path, tiny_base, make_recipe())
    with pytest.raises(AssayError):
        work.sft(Nowhere())
    (record,) = work.records()
    assert (record.outcome, record.reason) == ("failed", "it did not start: the cluster does not answer")


def test_the_trainer_refuses_what_does_not_fit_before_it_loads_the_base(tmp_path: Path, tiny_base: Path) -> None:
    job = make_job(tmp_path, tiny_base, make_recipe())
    assert _in_a_process(_on_a_small_machine, job) == 1
    failed = json.loads(RunFiles(tmp_path).failed.read_text())
    assert failed["error"] == "Refused"
    assert "has 0.1 GB" in failed["reason"]
    assert not RunFiles(tmp_path).metrics.exists()


def _on_a_small_machine(job_file: Path) -> None:
    estimate.this_machine = lambda: Machine(kind="cpu", total=10**8, free=10**8)
    os._exit(main(job_file))


def test_a_sweep_by_one_standard_error_is_the_same_after_a_kill(tmp_path: Path, tiny_base: Path) -> None:
    recipe = make_recipe(
        sft={"steps": 8, "eval_every": 2, "checkpoint_every": 3, "select": "one_standard_error"}, preference=None
    )
    whole, killed = (make_job(tmp_path / name, tiny_base, recipe) for name in ("whole", "killed"))
    uninterrupted = finish(whole)
    assert Trainer(killed).signal_when(signal.SIGKILL, reached(killed, 5)) == -signal.SIGKILL
    assert finish(killed) == uninterrupted

    results = [json.loads(RunFiles(path.parent).result.read_text()) for path in (whole, killed)]
    assert results[0] == results[1]
    points = [CurvePoint.model_validate(point) for point in results[0]["curve"]]
    validated = {point.step: point for point in points if point.validation_loss is not None}
    assert list(validated) == [0, 2, 4, 6, 8]
    losses = {step: point.validation_loss or 0.0 for step, point in validated.items()}
    errors = {step: point.validation_error for step, point in validated.items()}
    least = min((loss, step) for step, loss in losses.items() if step)[1]
    chosen = results[0]["step"]
    assert errors[least] == 0
    assert 0 < chosen <= least
    assert losses[chosen] <= losses[least] + (errors[chosen] or 0.0) + 1e-6
