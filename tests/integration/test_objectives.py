"""Every objective and every field of the recipe trains for real on a tiny model, through the one trainer program."""

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from data_contracts.digests import Digest
from data_contracts.records import ChatExample, Message
from evals.answers import words
from pipelines.recipes.recipe import Recipe
from pipelines.stages.train.checkpoints import SEAL
from pipelines.stages.train.job import RunFiles, TrainJob, TrainResult
from pipelines.stages.train.note import RECIPE
from tests.support.tiny import CHATML, make_tiny_base
from tests.support.trainer import Trainer, finish, reached, weights_digest
from tests.support.training import make_job, make_recipe, make_tuning, write_rows


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("teacher") / "tiny", seed=3)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The folder of a finished SFT run: what later stages start from, and what a changed field is compared with."""
    folder = tmp_path_factory.mktemp("sft")
    finish(make_job(folder, tiny_base, make_recipe()))
    return folder


def _result(folder: Path) -> TrainResult:
    return TrainResult.model_validate_json(RunFiles(folder).result.read_bytes())


def _losses(folder: Path) -> list[float]:
    return [point.loss for point in _result(folder).curve if point.loss is not None]


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("preference", {"loss_type": ["ipo"]}),
        ("kto", {"desirable_weight": 1.3}),
        ("reward", {"center": 0.01}),
        ("distill", {}),
    ],
)
def test_what_follows_sft_lowers_its_loss_and_survives_a_kill(
    tmp_path: Path, tiny_base: Path, taught: Path, teacher: Path, stage: str, changes: dict[str, Any]
) -> None:
    recipe = make_recipe(**make_tuning(stage, {"batch_size": 4}, **changes))
    parent = RunFiles(taught).weights
    whole = finish(make_job(tmp_path / "whole", tiny_base, recipe, parent, teacher))
    metrics = _result(tmp_path / "whole").metrics
    assert metrics["validation_loss"] < metrics["validation_loss_start"]
    assert whole != weights_digest(taught / "job.json")

    killed = make_job(tmp_path / "killed", tiny_base, recipe, parent, teacher)
    assert Trainer(killed).signal_when(signal.SIGKILL, reached(killed, 5)) == -signal.SIGKILL
    assert finish(killed) == whole
    assert "resuming from step-" in (tmp_path / "killed" / "trainer.log").read_text()


def test_a_reward_model_starts_from_the_sft_adapter_under_a_new_head(tmp_path: Path, tiny_base: Path) -> None:
    from safetensors.torch import load_file

    recipe = make_recipe("qlora", **make_tuning("reward", {"learning_rate": 1e-9, "steps": 1, "eval_every": 1}))
    finish(make_job(tmp_path / "sft", tiny_base, recipe))
    finish(make_job(tmp_path / "reward", tiny_base, recipe, RunFiles(tmp_path / "sft").weights))
    before, after = (
        load_file(RunFiles(tmp_path / name).weights / "adapter_model.safetensors") for name in ("sft", "reward")
    )
    assert after.keys() - before.keys() == {"base_model.model.score.weight"}
    assert all(after[name].float().allclose(before[name].float(), atol=1e-4) for name in before)
    assert any(before[name].any() for name in before if "lora_B" in name)


def _with_rows(job_file: Path, rows: Sequence[ChatExample]) -> Path:
    job = TrainJob.model_validate_json(job_file.read_bytes())
    for path in (job.train_rows, job.validation_rows):
        write_rows(path, list(rows))
    names = tuple(row.digest for row in rows)
    changed = job.model_copy(update={"row_names": {"train": names, "validation": names}})
    job_file.write_text(changed.model_dump_json())
    return job_file


def test_grpo_raises_the_reward_of_its_own_answers_and_survives_a_kill(tmp_path: Path, tiny_base: Path) -> None:
    rows = [
        ChatExample(messages=(Message(role="user", content=f"q{n}"), Message(role="assistant", content=words("ok"))))
        for n in range(8)
    ]
    schedule = {"batch_size": 16, "learning_rate": 0.0005, "steps": 12, "eval_every": 6, "eval_rows": 8}
    rewards = {"json_valid": 0.2, "tool_offered": 0.3, "exact": 0.5}
    recipe = make_recipe(
        "full",
        sft={"learning_rate": 0.01, "steps": 60, "eval_every": 60, "checkpoint_every": 60, "batch_size": 4},
        **make_tuning("grpo", schedule, rewards=rewards, max_tokens=32, temperature=0.6, beta=0.0),
    )
    finish(_with_rows(make_job(tmp_path / "sft", tiny_base, recipe), rows))
    parent = RunFiles(tmp_path / "sft").weights
    whole = finish(_with_rows(make_job(tmp_path / "whole", tiny_base, recipe, parent), rows))
    earned = [point.reward for point in _result(tmp_path / "whole").curve if point.reward is not None]
    assert fmean(earned[-4:]) > fmean(earned[:4])

    killed = _with_rows(make_job(tmp_path / "killed", tiny_base, recipe, parent), rows)
    assert Trainer(killed).signal_when(signal.SIGKILL, reached(killed, 5)) == -signal.SIGKILL
    assert finish(killed) == whole


def test_grpo_refuses_rows_whose_answers_cannot_be_verified(tmp_path: Path, tiny_base: Path, taught: Path) -> None:
    recipe = make_recipe(**make_tuning("grpo", {"batch_size": 4}))
    chat = ChatExample(messages=(Message(role="user", content="hi"), Message(role="assistant", content="hello")))
    job = _with_rows(make_job(tmp_path, tiny_base, recipe, RunFiles(taught).weights), [chat])
    assert Trainer(job).wait() == 1
    assert "no row's answer is a call" in json.loads(RunFiles(tmp_path).failed.read_text())["reason"]


@pytest.mark.parametrize("stage", ["grpo", "distill"])
def test_a_prompt_that_leaves_no_room_for_an_answer_is_named(
    tmp_path: Path, tiny_base: Path, taught: Path, teacher: Path, stage: str
) -> None:
    recipe = make_recipe(max_length=64, **make_tuning(stage, {"batch_size": 4}))
    assert Trainer(make_job(tmp_path, tiny_base, recipe, RunFiles(taught).weights, teacher)).wait() == 1
    reason = json.loads(RunFiles(tmp_path).failed.read_text())["reason"]
    assert "row sha256:" in reason
    assert "raise it or lower max_tokens" in reason


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path, tiny_base: Path, taught: Path) -> None:
    other = shutil.copytree(tiny_base, tmp_path / "other")
    vocabulary = json.loads((other / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"]["a"], vocabulary["model"]["vocab"]["b"] = (
        vocabulary["model"]["vocab"]["b"],
        vocabulary["model"]["vocab"]["a"],
    )
    (other / "tokenizer.json").write_text(json.dumps(vocabulary))
    job = make_job(tmp_path / "run", tiny_base, make_recipe(**make_tuning("distill")), RunFiles(taught).weights, other)
    assert Trainer(job).wait() == 1
    assert "another vocabulary" in json.loads(RunFiles(tmp_path / "run").failed.read_text())["reason"]


_TWO = {"steps": 2, "eval_every": 2, "warmup_steps": 0}
_LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj", "down_proj"]}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Digest:
    return finish(make_job(tmp_path_factory.mktemp("two"), tiny_base, make_recipe(sft=_TWO)))


@pytest.mark.parametrize(
    "changes",
    [
        {"learning": {"packing": True}},
        {"learning": {"assistant_only_loss": False}},
        {"learning": {"neftune_alpha": 5.0}},
        {"learning": {"label_smoothing": 0.1}},
        {"learning": {"kl": 1.0}},
        {"sft": _TWO | {"weight_decay": 0.5}},
        {"sft": _TWO | {"scheduler": "constant"}},
        {"sft": _TWO | {"accumulate": 2}},
        {"sft": _TWO | {"clip_norm": 1e-3}},
        {"optimizer": "adafactor"},
        {"precision": "bf16"},
        {"seed": 6},
        {"lora": _LORA | {"alpha": 16}},
        {"lora": _LORA | {"dropout": 0.3}},
        {"lora": _LORA | {"rank": 2}},
        {"lora": _LORA | {"targets": ["q_proj"]}},
    ],
    ids=str,
)
def test_a_field_of_the_recipe_changes_what_is_learned(
    tmp_path: Path, tiny_base: Path, two_steps: Digest, changes: dict[str, Any]
) -> None:
    assert finish(make_job(tmp_path, tiny_base, make_recipe(**{"sft": _TWO, **changes}))) != two_steps


@pytest.fixture(scope="module")
def two_steps_after(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, taught: Path, teacher: Path
) -> Callable[..., Digest]:
    """The weights after two steps of what follows SFT; the plain ones are trained once."""

    @cache
    def plain(stage: str) -> Digest:
        return trained(stage, {})

    def trained(stage: str, changes: dict[str, Any]) -> Digest:
        recipe = make_recipe(**make_tuning(stage, _TWO | {"batch_size": 4}, **changes))
        folder = tmp_path_factory.mktemp(stage)
        return finish(make_job(folder, tiny_base, recipe, RunFiles(taught).weights, teacher))

    return lambda stage, changes=None: trained(stage, changes) if changes else plain(stage)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("preference", {"beta": 0.5}),
        ("kto", {"beta": 0.5}),
        ("kto", {"desirable_weight": 2.0}),
        ("kto", {"undesirable_weight": 2.0}),
        ("reward", {"center": 1.0}),
        ("distill", {"divergence": 0.0}),
        ("distill", {"temperature": 0.5}),
        ("distill", {"max_tokens": 4}),
    ],
)
def test_a_field_of_what_follows_sft_changes_what_is_learned(
    two_steps_after: Callable[..., Digest], stage: str, changes: dict[str, Any]
) -> None:
    assert two_steps_after(stage, changes) != two_steps_after(stage)


def _first_losses(folder: Path, base: Path, recipe: Recipe) -> tuple[float, Digest]:
    digest = finish(make_job(folder, base, recipe))
    return _losses(folder)[0], digest


def test_packed_conversations_do_not_see_each_other(tmp_path: Path, tiny_base: Path) -> None:
    """All ten rows in one row of the batch have the loss that they have one by one."""
    apart = make_recipe(max_length=8192, sft={"batch_size": 10, "steps": 1, "eval_every": 1})
    packed = make_recipe(
        max_length=8192, sft={"batch_size": 1, "steps": 1, "eval_every": 1}, learning={"packing": True}
    )
    one, _ = _first_losses(tmp_path / "apart", tiny_base, apart)
    other, _ = _first_losses(tmp_path / "packed", tiny_base, packed)
    assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_kl_holds_the_model_near_the_base(tmp_path: Path, tiny_base: Path, method: str) -> None:
    free, held = tmp_path / "free", tmp_path / "held"
    finish(make_job(free, tiny_base, make_recipe(method)))
    finish(make_job(held, tiny_base, make_recipe(method, learning={"kl": 20.0})))
    assert _losses(free)[0] == pytest.approx(_losses(held)[0], abs=1e-4), "the model begins as the base"
    assert _result(held).metrics["validation_loss"] > _result(free).metrics["validation_loss"]


def test_early_stopping_keeps_the_least_validation_loss_whenever_it_is_killed(tmp_path: Path, tiny_base: Path) -> None:
    quick = {"learning_rate": 0.3, "steps": 20, "eval_every": 1, "checkpoint_every": 1, "scheduler": "constant"}
    patient = make_recipe(
        "full", sft=quick | {"patience": 2}, guards={"max_loss_ratio": 1e6, "window": 2, "max_grad_norm": 1e9}
    )
    whole = finish(make_job(tmp_path / "whole", tiny_base, patient))
    found = _result(tmp_path / "whole")
    validated = {point.step: point.validation_loss for point in found.curve if point.step}
    assert max(validated) < 20
    assert found.step == max(validated) - 2
    assert validated[found.step] == min(validated.values())

    killed = make_job(tmp_path / "killed", tiny_base, patient)
    Trainer(killed).signal_when(signal.SIGKILL, reached(killed, max(validated)))
    assert finish(killed) == whole
    assert _result(tmp_path / "killed") == found


def test_the_recipe_travels_with_every_checkpoint(tmp_path: Path, tiny_base: Path) -> None:
    recipe = make_recipe()
    job = make_job(tmp_path, tiny_base, recipe)
    assert Trainer(job).signal_when(signal.SIGKILL, reached(job, 5)) == -signal.SIGKILL
    files = RunFiles(tmp_path)
    sealed = [seal.parent for place in (files.checkpoints, files.sweep) for seal in place.glob(f"*/{SEAL}")]
    assert len(sealed) > 1
    for folder in sealed:
        noted = json.loads((folder / RECIPE).read_text())
        assert Recipe.model_validate(noted["recipe"]).digest == noted["digest"] == recipe.digest
        assert RECIPE in json.loads((folder / SEAL).read_text())
    finish(job)
    assert not (files.weights / RECIPE).exists()


def test_a_run_says_whether_it_refused_operations_that_differ_from_run_to_run(
    tmp_path: Path, tiny_base: Path, taught: Path
) -> None:
    finish(make_job(tmp_path, tiny_base, make_recipe(deterministic=False, sft=_TWO)))
    said = [_result(folder).environment["deterministic"] for folder in (taught, tmp_path)]
    assert said == ["true", "false"]


def test_without_marks_in_the_template_every_token_can_be_learned(tmp_path: Path, tiny_base: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text(CHATML)
    for name, answers_only in (("answers", True), ("all", False)):
        recipe = make_recipe(learning={"assistant_only_loss": answers_only})
        job_file = make_job(tmp_path / name, tiny_base, recipe)
        job = TrainJob.model_validate_json(job_file.read_bytes())
        job_file.write_text(job.model_copy(update={"template": template}).model_dump_json())
        assert Trainer(job_file).wait() == (1 if answers_only else 0)
    reason = json.loads(RunFiles(tmp_path / "answers").failed.read_text())["reason"]
    assert "every label is masked" in reason
