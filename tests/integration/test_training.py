"""Training for real on a tiny model: each method, DPO's reference, guards, one writer, and the steps of the line."""

import json
import math
import re
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from data_contracts.digests import sha256_bytes, tree_digest, tree_files
from data_contracts.errors import Refused
from data_contracts.manifests import BaseManifest
from pipelines.settings import Settings
from pipelines.stages.train import steps
from pipelines.stages.train.checkpoints import Checkpoints
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainResult
from pipelines.wiring import Line
from resources.adapters import check_adapter
from tests.support.stepping import InProcessOfItsOwn, export_made_up_rows, made_up_data, product_with
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, finish, reached, weights_digest
from tests.support.training import TEMPLATE, make_job, make_recipe, make_tuning


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def _result(folder: Path) -> TrainResult:
    return TrainResult.model_validate_json(RunFiles(folder).result.read_bytes())


def _losses(points: tuple[CurvePoint, ...]) -> list[float]:
    return [point.loss for point in points if point.loss is not None]


@pytest.mark.parametrize("method", ["lora", "qlora", "dora", "full"])
def test_sft_then_dpo_learn_and_leave_one_thing_to_serve(tmp_path: Path, tiny_base: Path, method: str) -> None:
    recipe = make_recipe(method, precision="bf16")
    sft = make_job(tmp_path / "sft", tiny_base, recipe)
    finish(sft)
    learned = _result(tmp_path / "sft")
    assert learned.metrics["validation_loss"] < learned.metrics["validation_loss_start"]
    assert [point.step for point in learned.curve] == list(range(7))

    dpo = make_job(tmp_path / "dpo", tiny_base, recipe, parent=RunFiles(tmp_path / "sft").weights)
    (tmp_path / "elsewhere").mkdir()
    finish(dpo, TMPDIR=str(tmp_path / "elsewhere"))
    assert list((tmp_path / "elsewhere").glob("hf_*")) == [], "a killed run must leave what it made of rows to erasure"
    preferred = _result(tmp_path / "dpo")
    # The policy starts as its own reference, the SFT model: the first DPO loss is that of no preference, ln 2.
    assert _losses(preferred.curve)[0] == pytest.approx(math.log(2), abs=1e-4)
    assert preferred.metrics["validation_loss"] < math.log(2)
    assert preferred.metrics["validation_accuracy"] == 1.0

    weights = RunFiles(tmp_path / "dpo").weights
    assert weights_digest(dpo) != weights_digest(sft)
    if method == "full":
        assert not list(weights.glob("*chat_template*"))
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in weights.iterdir()}
    else:
        assert {path.name for path in weights.iterdir()} == {"adapter_model.safetensors", "adapter_config.json"}
        with pytest.raises(Refused, match="DoRA") if method == "dora" else nullcontext():
            check_adapter(weights, sha256_bytes(b"tiny base"), max_rank=4)
        assert str(tmp_path) not in (weights / "adapter_config.json").read_text()


def test_the_reference_of_dpo_is_the_sft_adapter_and_stays_frozen(tmp_path: Path, tiny_base: Path) -> None:
    """Another parent gives another result from the same pairs, and a run resumed in mid-course keeps the reference."""
    recipe = make_recipe(dpo={"eval_every": 6})
    digests = []
    for name, learning_rate in (("weak", 1e-4), ("strong", 0.05)):
        parent = tmp_path / name
        finish(make_job(parent, tiny_base, make_recipe(sft={"learning_rate": learning_rate})))
        digests.append(finish(make_job(tmp_path / f"{name}-dpo", tiny_base, recipe, RunFiles(parent).weights)))
    assert digests[0] != digests[1]

    resumed = make_job(tmp_path / "resumed", tiny_base, recipe, RunFiles(tmp_path / "strong").weights)
    assert Trainer(resumed).signal_when(signal.SIGKILL, reached(resumed, 5)) == -signal.SIGKILL
    assert finish(resumed) == digests[1]


def test_a_learning_rate_that_explodes_stops_before_the_weights_are_spoiled(tmp_path: Path, tiny_base: Path) -> None:
    guards = {"max_loss_ratio": 1.5, "window": 2, "max_grad_norm": 1e9}
    recipe = make_recipe("full", guards=guards, sft={"learning_rate": 50.0, "checkpoint_every": 1, "warmup_steps": 3})
    trainer = Trainer(make_job(tmp_path, tiny_base, recipe))
    assert trainer.wait() == 1
    failed = json.loads(RunFiles(tmp_path).failed.read_text())
    assert failed["error"] == "GuardTripped"
    assert "guards.max_loss_ratio" in failed["reason"] or "the loss is nan" in failed["reason"]
    checkpoints = Checkpoints(str(RunFiles(tmp_path).checkpoints))
    assert checkpoints.steps()
    assert all(checkpoints.is_whole(step) for step in checkpoints.steps())
    assert not RunFiles(tmp_path).result.exists()


def test_a_second_trainer_does_not_touch_the_run(tmp_path: Path, tiny_base: Path) -> None:
    job = make_job(tmp_path, tiny_base, make_recipe())
    first = Trainer(job)
    second = Trainer(job)
    codes = {first.wait(), second.wait()}
    assert codes == {0, 1}
    assert "another trainer is at work" in first.log.read_text()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning:mlflow")  # mlflow's own
def test_metrics_reach_mlflow_as_numbers(tmp_path: Path, tiny_base: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    finish(make_job(tmp_path / "run", tiny_base, make_recipe()), MLFLOW_TRACKING_URI=uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("test-product")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 6
    assert [point.step for point in client.get_metric_history(run.info.run_id, "validation_loss")] == [0, 3, 6]
    assert {"grad_norm", "token_accuracy", "tokens_per_second", "memory_gb", "eta_seconds"} <= run.data.metrics.keys()
    assert run.data.tags["assay.outcome"] == "done"

    guards = {"max_loss_ratio": 10.0, "window": 4, "max_grad_norm": 1e-9}
    Trainer(make_job(tmp_path / "tripped", tiny_base, make_recipe(guards=guards)), MLFLOW_TRACKING_URI=uri).wait()
    (tripped,) = client.search_runs([experiment.experiment_id], "tags.`assay.outcome` = 'failed'")
    assert tripped.info.status == "FAILED"
    assert "guards.max_grad_norm" in tripped.data.tags["assay.reason"]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust"))


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> None:
    export_made_up_rows(monkeypatch)


@pytest.mark.usefixtures("exported")
def test_from_base_to_the_selected_model_and_nothing_twice(tmp_path: Path, line: Line) -> None:
    product, launcher = product_with(tmp_path, make_recipe()), InProcessOfItsOwn()
    splits, preferences = made_up_data(line, "splits"), made_up_data(line, "preferences")

    def whole() -> tuple[Any, list[bool]]:
        base, base_hit = steps.base(line, product, str(source))
        sft, sft_hit = steps.sft(line, product, base, splits, launcher)
        dpo, dpo_hit = steps.tuned(line, product, base, sft, splits, preferences, launcher)
        model, model_hit = steps.selected(line, product, base, sft, dpo, splits)
        return (base, sft, dpo, model), [base_hit, sft_hit, dpo_hit, model_hit]

    source = make_tiny_base(tmp_path / "tiny")
    made, hits = whole()
    base, sft, dpo, model = made
    assert hits == [False] * 4
    assert whole() == (made, [True] * 4)
    assert launcher.launched == 2

    assert (dpo.parent, model.checkpoint, model.weights) == (sft.digest, dpo.digest, dpo.weights)
    assert (sft.base, model.rank, model.method) == (base.digest, 4, "lora")
    assert model.datasets == (splits.digest, preferences.digest)
    assert (model.licences, model.synthetic_share) == (("CC0-1.0", "MIT"), 0.75)
    assert line.store.get_bytes(model.template) == TEMPLATE.read_bytes()
    assert [event.event for event in line.log.records()] == ["checkpoint.recorded"] * 2 + ["model.selected"]
    points = [CurvePoint.model_validate(point) for point in line.store.get_json(sft.curve)]
    assert len(_losses(tuple(points))) == 6
    for name in (sft.weights, model.recipe, sft.recipe, sft.environment):
        assert line.store.has(name)

    # Nothing but numbers stays behind: no rows, no optimizer states.
    left = {path.name for path in (tmp_path / "home" / "training").glob("*/*")}
    assert left <= {"metrics.jsonl", "lock", "trainer.log"}


@pytest.mark.usefixtures("exported")
def test_a_killed_step_resumes_when_it_is_run_again(tmp_path: Path, line: Line) -> None:
    product, splits = product_with(tmp_path, make_recipe()), made_up_data(line, "splits")
    base, _ = steps.base(line, product, str(make_tiny_base(tmp_path / "tiny")))

    class Killed:
        def launch(self, job_file: Path, run_dir: Path) -> None:
            Trainer(job_file).signal_when(signal.SIGKILL, reached(job_file, 5))
            raise Refused("killed")

    with pytest.raises(Refused, match="killed"):
        steps.sft(line, product, base, splits, Killed())
    (run_dir,) = (tmp_path / "home" / "training").iterdir()
    assert not (run_dir / "rows").exists()
    assert Checkpoints(str(run_dir / "checkpoints")).steps()
    resumed, hit = steps.sft(line, product, base, splits, InProcessOfItsOwn())
    assert not hit
    # The one of step 4 may have been in flight, that of step 2 was written before it was taken.
    assert re.search("resuming from step-[24]", (run_dir / "trainer.log").read_text())

    other = Line(Settings(home=tmp_path / "other", trust_root=tmp_path / "trust"))
    again, _ = steps.base(other, product, str(tmp_path / "tiny"))
    assert again == base
    assert made_up_data(other, "splits") == splits
    uninterrupted, _ = steps.sft(other, product, again, splits, InProcessOfItsOwn())
    assert uninterrupted == resumed


@pytest.mark.usefixtures("exported")
def test_weights_that_were_lost_are_trained_anew(tmp_path: Path, line: Line) -> None:
    product, splits = product_with(tmp_path, make_recipe()), made_up_data(line, "splits")
    base, _ = steps.base(line, product, str(make_tiny_base(tmp_path / "tiny")))
    made, _ = steps.sft(line, product, base, splits, InProcessOfItsOwn())
    listing = Path(line.store.root) / "blobs" / made.weights[7:9] / made.weights[7:]
    listing.unlink()
    shutil.rmtree(Path(line.store.root) / "sealed" / made.weights[7:])
    assert steps.sft(line, product, base, splits, InProcessOfItsOwn()) == (made, False)
    with line.store.opened(made.weights) as folder:
        assert tree_digest(tree_files(folder)) == made.weights


def test_a_recipe_without_preferences_refuses_that_step(tmp_path: Path, line: Line) -> None:
    product = product_with(tmp_path, make_recipe(preference=None))
    base = BaseManifest(name="b", source="folder", licence="mit", tree=sha256_bytes(b"t"), parameters=1)
    sets = (made_up_data(line, "splits"), made_up_data(line, "preferences"))
    with pytest.raises(Refused, match="ends with SFT: add one of the sections preference, kto, "):
        steps.tuned(line, product, base, None, *sets, InProcessOfItsOwn())  # type: ignore[arg-type]


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("stage", ["kto", "grpo", "distill", "reward"])
def test_a_product_runs_what_its_recipe_names_after_sft(tmp_path: Path, line: Line, stage: str) -> None:
    source = make_tiny_base(tmp_path / "tiny")
    changes = {"teacher": str(_teacher(tmp_path / "teacher", "apache-2.0"))} if stage == "distill" else {}
    quick = {"steps": 2, "eval_every": 2, "batch_size": 4}
    recipe = make_recipe("dora", sft={"steps": 2, "eval_every": 2}, **make_tuning(stage, quick, **changes))
    product, launcher = product_with(tmp_path, recipe), InProcessOfItsOwn()
    splits, preferences = made_up_data(line, "splits"), made_up_data(line, "preferences")
    base, _ = steps.base(line, product, str(source))
    sft, _ = steps.sft(line, product, base, splits, launcher)
    tuned, _ = steps.tuned(line, product, base, sft, splits, preferences, launcher)
    assert (tuned.stage, tuned.method, tuned.parent) == (stage, "dora", sft.digest)
    assert (tuned.datasets[-1] == splits.digest) == (stage in ("grpo", "distill"))
    if stage == "distill":
        assert tuned.teacher is not None
        assert line.store.get_manifest(tuned.teacher, BaseManifest).source == "folder"
    model, _ = steps.selected(line, product, base, sft, tuned, splits)
    better = tuned.metrics["validation_loss"] < tuned.metrics["validation_loss_start"]
    assert model.checkpoint == (tuned.digest if better and stage != "reward" else sft.digest)
    assert better or stage != "reward", "a reward model is not taken although it learned"


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", None])
def test_a_teacher_under_terms_that_the_policy_does_not_allow_is_refused(
    tmp_path: Path, line: Line, licence: str | None
) -> None:
    teacher = _teacher(tmp_path / "teacher", licence)
    product = product_with(tmp_path, make_recipe(**make_tuning("distill", teacher=str(teacher))))
    base, _ = steps.base(line, product, str(make_tiny_base(tmp_path / "tiny")))
    sets = (made_up_data(line, "splits"), made_up_data(line, "preferences"))
    with pytest.raises(Refused, match=f"teacher teacher is under {licence or 'unknown'},.*allowed: Apache-2.0, CC-BY"):
        steps.tuned(line, product, base, None, *sets, InProcessOfItsOwn())  # type: ignore[arg-type]


def _teacher(folder: Path, licence: str | None) -> Path:
    make_tiny_base(folder, seed=3)
    if licence is not None:
        (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    return folder


def test_pairs_are_asked_for_where_a_product_has_none(tmp_path: Path, line: Line) -> None:
    product, splits = product_with(tmp_path, make_recipe()), made_up_data(line, "splits")
    base = BaseManifest(name="b", source="folder", licence="mit", tree=sha256_bytes(b"t"), parameters=1)
    with pytest.raises(Refused, match="has no pairs for preference to learn from: add a source of kind preference"):
        steps.tuned(line, product, base, None, splits, splits, InProcessOfItsOwn())  # type: ignore[arg-type]
