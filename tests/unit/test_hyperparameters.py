"""Hyperparameter search: what it tries and keeps, what ends a trial or the search, and how it goes on after a kill."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import BadInput, Refused
from pipelines.recipes.edit import with_values
from pipelines.recipes.recipe import FOLDER, load_recipe
from pipelines.recipes.search import Between, load_search
from pipelines.settings import Settings
from pipelines.stages.train import search as searching
from pipelines.stages.train.search import search
from pipelines.wiring import Line
from tests.support.searching import (
    RATE,
    SCHEDULE,
    FormulaTrainer,
    at,
    export_chats,
    loss_of,
    make_base,
    make_product,
    make_search,
    make_splits,
)
from tests.support.training import make_recipe

SHIPPED = (FOLDER / "billing-assistant.yaml").read_text()


class Bench:
    """One installation with a product, a base and data."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.line = Line(Settings(home=folder / "home", trust_root=folder / "trust"))
        self.product = make_product(folder, make_recipe())
        self.base, self.splits = make_base(self.line, folder / "base"), make_splits(self.line)
        self.told: list[str] = []

    def search(self, trainer: FormulaTrainer, **changes: Any) -> Any:
        wanted = make_search(**changes)
        return search(self.line, self.product, wanted, self.base, self.splits, trainer, self.told.append)

    def runs(self) -> list[Path]:
        return sorted((self.line.home / "training").glob("*"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    export_chats(monkeypatch)
    return Bench(tmp_path / "one")


@settings(max_examples=20)
@given(
    rate=st.floats(1e-9, 1.0, exclude_min=True),
    rank=st.integers(1, 256),
    scheduler=st.sampled_from(["constant", "linear"]),
)
def test_changed_values_leave_every_other_character_as_it_was(rate: float, rank: int, scheduler: str) -> None:
    values = {RATE: rate, "lora.rank": rank, f"{SCHEDULE}.scheduler": scheduler}
    changed = with_values(SHIPPED, values)
    document = yaml.safe_load(changed)
    assert {key: at(document, key) for key in values} == values
    differing = [(a, b) for a, b in zip(SHIPPED.splitlines(), changed.splitlines(), strict=True) if a != b]
    assert len(differing) <= 3
    for old, new in differing:
        assert old.partition(":")[0] == new.partition(":")[0]
        assert old.partition("#")[2] == new.partition("#")[2]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        (f"{RATE}s", 0.1, "learning_rates: the recipe's file has no such key"),
        ("sft", 0.1, "is a list or a section"),
        ("lora.targets", "all", "is a list or a section"),
        ("seed.more", 1, "has no such key"),
    ],
)
def test_a_key_that_is_no_single_value_is_named(key: str, value: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        with_values(SHIPPED, {key: value})


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({RATE: {"low": -1.0, "high": 0.1}}, f"{RATE} cannot be -1.0"),
        ({f"{SCHEDULE}.scheduler": {"choices": ["linear", "cubic"]}}, "scheduler cannot be 'cubic'"),
        ({"preference.beta": {"low": 0.1, "high": 0.2}}, "does not act on SFT"),
        ({f"{SCHEDULE}.eval_rows": {"low": 2, "high": 4}}, "changes what is measured"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_before_any_training(
    bench: Bench, space: dict[str, Any], told: str
) -> None:
    trainer = FormulaTrainer()
    with pytest.raises(BadInput, match=told):
        bench.search(trainer, space=space)
    assert not trainer.launched


def test_an_unknown_key_of_a_search_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(make_search().model_dump(mode="json") | {"trails": 3}))
    with pytest.raises(BadInput, match=r"mine\.yaml: trails: Extra inputs"):
        load_search(path)
    with pytest.raises(BadInput, match=r"known searches: .*billing-assistant"):
        load_search("nothing")


@pytest.mark.parametrize("wrong", [{"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}])
def test_a_range_without_values_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="low"):
        Between.model_validate(wrong)


def test_the_best_trial_is_a_recipe_to_use_and_training_with_it_is_done_already(bench: Bench, tmp_path: Path) -> None:
    made, hit = bench.search(FormulaTrainer())
    assert not hit
    assert [trial.state for trial in made.trials] == ["complete"] * 5
    losses = {trial.number: trial.validation_loss for trial in made.trials}
    assert losses[made.best] == min(losses.values())
    assert made.winner.validation_loss == pytest.approx(loss_of(made.winner.parameters[RATE], 6))
    assert len({trial.recipe for trial in made.trials}) == 5

    best = tmp_path / "best.yaml"
    best.write_bytes(bench.line.store.get_bytes(made.best_recipe))
    assert best.read_text().startswith("# as a person wrote it")
    assert at(load_recipe(best).payload(), RATE) == made.winner.parameters[RATE]
    trainer = FormulaTrainer()
    product = bench.product.model_copy(update={"recipe": str(best)})
    checkpoint, hit = searching.steps.sft(bench.line, product, bench.base, bench.splits, trainer)
    assert (hit, trainer.launched, checkpoint.digest) == (True, [], made.winner.checkpoint)
    assert bench.search(FormulaTrainer(), trials=5) == (made, True)
    for run in bench.runs():
        assert {path.name for path in run.iterdir()} <= {"metrics.jsonl", "lock"}


def test_what_matters_is_told_from_what_does_not(bench: Bench) -> None:
    made, _ = bench.search(FormulaTrainer(), trials=12)
    assert made.importance[RATE] > 0.8
    assert sum(made.importance.values()) == pytest.approx(1.0)


def test_a_hopeless_trial_is_ended_and_leaves_nothing(bench: Bench) -> None:
    pruner = {"startup_trials": 1, "startup_steps": 0}
    made, _ = bench.search(FormulaTrainer(pause=1.0), pruner=pruner)
    states = [trial.state for trial in made.trials]
    assert states[0] == "complete"
    assert "pruned" in states
    for trial in made.trials:
        if trial.state == "pruned":
            assert "the median of trials was better" in trial.reason
            assert [step for step, _ in trial.curve] == [3]
            assert trial.checkpoint is None
    assert len(bench.runs()) == states.count("complete")


def test_trials_that_fail_are_told_with_their_reason(bench: Bench) -> None:
    made, _ = bench.search(FormulaTrainer(explodes=0.05), trials=8)
    failed = [trial for trial in made.trials if trial.state == "failed"]
    assert failed
    assert all(trial.parameters[RATE] > 0.05 and "the loss is nan" in trial.reason for trial in failed)
    assert len(bench.runs()) == 8 - len(failed)


def test_a_search_in_which_everything_fails_gives_up(bench: Bench) -> None:
    trainer = FormulaTrainer(explodes=0.0)
    with pytest.raises(Refused, match="3 trials failed in a row, at last with: the loss is nan"):
        bench.search(trainer, trials=50)
    assert len(trainer.launched) == 3


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_killed_search_goes_on_and_tries_what_it_would_have_tried(bench: Bench, tmp_path: Path, sampler: str) -> None:
    first = FormulaTrainer(dies=2)
    with pytest.raises(KeyboardInterrupt):
        bench.search(first, sampler=sampler, trials=12)
    second = FormulaTrainer()
    # The run was cut off in the middle: its checkpoints wait for the trial that goes on, and say of what rows.
    assert json.loads((first.launched[2] / "job.json").read_text())["row_names"]["train"]
    assert (first.launched[2] / "checkpoints").is_dir()
    (first.launched[2] / "checkpoints" / "step-1").rmdir()
    resumed, _ = bench.search(second, sampler=sampler, trials=12)
    assert [trial.number for trial in resumed.trials if trial.state == "interrupted"] == [2]
    assert second.launched[0] == first.launched[2]

    straight = FormulaTrainer()
    whole, _ = Bench(tmp_path / "other").search(straight, sampler=sampler, trials=12)
    assert first.rates[:2] + second.rates == straight.rates
    assert resumed.winner.parameters == whole.winner.parameters


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_journal_that_was_cut_off_in_the_middle_of_a_line_is_gone_on_with(bench: Bench, cut: int) -> None:
    whole, _ = bench.search(FormulaTrainer(), trials=4)
    (journal,) = (bench.line.home / "searches").glob("*/journal.log")
    journal.write_bytes(journal.read_bytes()[:-cut])
    journal.with_name("journal.log.lock").symlink_to(journal)
    more, hit = bench.search(FormulaTrainer(), trials=5)
    assert not hit
    assert [t.parameters for t in more.trials if t.state == "complete"][:4] == [t.parameters for t in whole.trials]


def test_more_trials_go_on_with_those_that_were_made(bench: Bench) -> None:
    few, _ = bench.search(FormulaTrainer(), trials=3)
    trainer = FormulaTrainer()
    more, hit = bench.search(trainer, trials=5)
    assert (hit, len(trainer.launched)) == (False, 2)
    assert more.trials[:3] == few.trials


def test_the_budget_ends_the_trial_under_way_and_the_search(bench: Bench) -> None:
    made, _ = bench.search(FormulaTrainer(pause=0.7), trials=50, device_hours=2.5 / 3600)
    assert made.ended == "budget"
    assert 2.5 <= made.device_hours * 3600 < 4.5
    assert made.trials[-1].state in ("complete", "pruned")


def test_a_budget_too_small_for_one_trial_is_told(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"no trial of the search ran to its end.*device-hours are used up"):
        bench.search(FormulaTrainer(pause=1.0), device_hours=1e-9)
    assert bench.runs() == []
