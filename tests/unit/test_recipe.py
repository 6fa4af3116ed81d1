"""Recipes: every file loads, every key acts, a mistake is named with its file and key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.errors import BadInput
from pipelines.recipes.recipe import FOLDER, load_recipe
from pipelines.stages.train.hardware import computes_bf16

SCHEDULE = yaml.safe_load((FOLDER / "kto.yaml").read_text())["kto"]["schedule"]
KTO = {"beta": 0.1, "schedule": SCHEDULE}
GRPO = {"rewards": {"exact": 1.0}, "generations": 4, "max_tokens": 8, "schedule": SCHEDULE}
DISTILL = {"teacher": "folder", "divergence": 0.5, "max_tokens": 8, "schedule": SCHEDULE}
SFT: dict[str, Any] = yaml.safe_load((FOLDER / "billing-assistant.yaml").read_text())["sft"]


def _changed(tmp_path: Path, change: dict[str, Any], section: str = "") -> Path:
    values = yaml.safe_load((FOLDER / "billing-assistant.yaml").read_text())
    target = values
    for key in section.split(".") if section else []:
        target = target[key]
    target.update(change)
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_file_loads(path: Path) -> None:
    assert load_recipe(path.stem) == load_recipe(path)


def test_the_gpu_recipe_is_qlora_and_the_demo_is_not_bound_to_a_gpu() -> None:
    assert load_recipe("billing-assistant-gpu").method == "qlora"
    assert load_recipe("billing-assistant").optimizer == "adamw_torch"


def test_an_unknown_key_is_an_error_that_names_file_and_key(tmp_path: Path) -> None:
    path = _changed(tmp_path, {"learning_rat": 0.1}, "preference.schedule")
    with pytest.raises(
        BadInput, match=r"changed\.yaml: preference\.schedule\.learning_rat: .*did you mean learning_rate"
    ):
        load_recipe(path)


@pytest.mark.parametrize(
    ("change", "section", "words"),
    [
        ({"eval_every": 7}, "sft.schedule", "eval_every 7 must divide steps 240"),
        ({"method": "full"}, "", "must be null for full"),
        ({"lora": None}, "", "lora is needed"),
        ({"loss_type": ["orpo"]}, "preference", r"preference\.loss_type\.0"),
        ({"loss_type": ["robust"]}, "preference", "label_smoothing"),
        ({"label_smoothing": 0.1}, "preference", "label_smoothing"),
        ({"learning_rate": 0}, "sft.schedule", r"sft\.schedule\.learning_rate"),
        ({"packing": True, "neftune_alpha": 5}, "sft", "neftune_alpha scales its noise .* drop one of the two"),
        ({"kl": -1}, "sft", r"sft\.kl"),
        ({"patience": 2}, "sft.schedule", "patience 2 never runs out in 2 validations: lower it or eval_every"),
        ({"kto": KTO}, "", "preference and kto: one objective follows SFT; set the others to null"),
        ({"preference": None, "kto": KTO | {"schedule": SCHEDULE | {"batch_size": 1}}}, "", "batch_size must be 2 or"),
        ({"preference": None, "grpo": GRPO | {"generations": 3}}, "", "generations 3 must divide .* = 4"),
        ({"preference": None, "grpo": GRPO | {"rewards": {"exact": 0.5}}}, "", "weights must be above 0 and sum to 1"),
        ({"preference": None, "grpo": GRPO | {"rewards": {"pretty": 1.0}}}, "", r"grpo\.rewards\.pretty"),
        ({"preference": None, "grpo": GRPO | {"max_tokens": 320}}, "", "leaves no room for a prompt in max_length 320"),
        ({"preference": None, "distill": DISTILL | {"divergence": 2}}, "", r"distill\.divergence"),
        (
            {"parallel": {"processes": 3}, "sft": SFT | {"kl": 0.0}},
            "",
            "batch_size .* must be a multiple of parallel.processes 3",
        ),
        ({"preference": None, "kto": KTO, "parallel": {"processes": 2}, "sft": SFT | {"kl": 0.0}}, "", "goes with sft"),
        ({"parallel": {"processes": 2}, "sft": SFT | {"kl": 0.1}}, "", r"parallel goes with sft \(without .* kl\)"),
        (
            {"preference": None, "kto": KTO | {"schedule": SCHEDULE | {"select": "one_standard_error"}}},
            "",
            "kto.schedule.select: one_standard_error goes with sft and preference",
        ),
        ({"max_skips": 3}, "guards", "max_skips goes with a guard whose action is skip"),
        ({"loss_spike": "roll_back"}, "guards.actions", "max_roll_backs goes with a guard whose action is roll_back"),
        ({"loss_spike": "ignore"}, "guards.actions", r"guards\.actions\.loss_spike"),
    ],
)
def test_a_value_that_cannot_act_is_refused(tmp_path: Path, change: dict[str, Any], section: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load_recipe(_changed(tmp_path, change, section))


def test_a_missing_recipe_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match="billing-assistant, billing-assistant-gpu"):
        load_recipe("nothing")


def test_a_change_of_the_preference_section_leaves_sft_valid(tmp_path: Path) -> None:
    changed, known = load_recipe(_changed(tmp_path, {"beta": 0.3}, "preference")), load_recipe("billing-assistant")
    assert changed.digest != known.digest
    assert changed.for_sft().digest == known.for_sft().digest
    assert load_recipe("grpo").for_sft().digest == load_recipe("kto").for_sft().digest


@pytest.mark.parametrize("name", ["kto", "reward", "grpo", "distill"])
def test_a_recipe_names_what_follows_sft(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.tuning == name
    assert recipe.schedule(name).steps > 0  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="the recipe has no preference section: add one"):
        recipe.section("preference")
    assert load_recipe("dora-small-data").tuning is None


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_becomes_definite_and_part_of_the_digest(native: bool, precision: str) -> None:
    recipe = load_recipe("billing-assistant")
    assert recipe.precision == "auto"
    assert recipe.resolved(native).precision == precision
    assert recipe.resolved(native).digest != recipe.digest
    fixed = load_recipe("billing-assistant-gpu")
    assert fixed.resolved(native) == fixed


@pytest.mark.parametrize(
    ("flags", "gpu", "found"), [("avx2 fma", False, False), ("avx512_bf16", False, True), ("avx2", True, True)]
)
def test_bf16_is_computed_where_the_machine_has_it(tmp_path: Path, flags: str, gpu: bool, found: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    if gpu:
        (tmp_path / "nvidia0").touch()
    assert computes_bf16(tmp_path / "cpuinfo", tmp_path / "nvidia0") is found
