"""`assay recipe`: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from pipelines.cli import app
from pipelines.recipes.recipe import FOLDER, Recipe


def assay(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_show_prints_every_key_and_the_digest_of_just_these() -> None:
    shown = json.loads(assay("recipe", "show", "billing-assistant", "--json").stdout)
    recipe = Recipe.model_validate(shown["recipe"])
    assert shown["digest"] == recipe.digest
    assert recipe.precision in ("bf16", "fp32")
    assert set(shown["recipe"]) == set(Recipe.model_fields)

    plain = assay("recipe", "show", str(FOLDER / "billing-assistant.yaml")).stdout
    assert plain.startswith(f"# {recipe.digest}\n")
    assert Recipe.model_validate(yaml.safe_load(plain)) == recipe


def test_show_of_an_unknown_recipe_names_the_known_ones() -> None:
    found = assay("recipe", "show", "nothing")
    assert isinstance(found.exception, BadInput)
    assert "known recipes: billing-assistant, " in str(found.exception)


def test_diff_names_the_keys_that_differ(tmp_path: Path) -> None:
    values = yaml.safe_load((FOLDER / "billing-assistant.yaml").read_text())
    values["sft"]["schedule"]["steps"] = 480
    values["preference"] = None
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(values))
    lines = assay("recipe", "diff", "billing-assistant", str(other)).stdout.splitlines()
    assert lines[0] == "sft.schedule.steps: 240 -> 480"
    assert 'preference.loss_type: ["sigmoid"] -> (no such section)' in lines
    found = json.loads(assay("recipe", "diff", "billing-assistant", str(other), "--json").stdout)
    assert found["sft.schedule.steps"] == [240, 480]
    assert assay("recipe", "diff", "kto", "kto").stdout == "the same\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("seed: seventeen", "seed: Input should be a valid integer"),
        ("warmup: 3", "warmup: there is no such key here; did you mean warmup_steps?"),
        ("method: full", "recipe: lora is needed for the methods lora, qlora and dora, and must be null for full"),
        ("grpo: {}", "grpo.rewards: this key is needed"),
    ],
)
def test_check_names_file_key_and_remedy_of_each_mistake(tmp_path: Path, line: str, words: str) -> None:
    values = yaml.safe_load((FOLDER / "billing-assistant.yaml").read_text()) | yaml.safe_load(line)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(values))
    found = assay("recipe", "check", str(FOLDER / "billing-assistant.yaml"), str(path))
    assert found.exit_code == 2
    assert f"{path}: {words}" in found.stdout
    assert f"{FOLDER / 'billing-assistant.yaml'}: right" in found.stdout


def test_check_of_what_is_no_recipe_at_all(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- a\n")
    (tmp_path / "broken.yaml").write_text("a: [\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    found = assay("recipe", "check", *(str(tmp_path / f"{name}.yaml") for name in ("list", "broken", "bytes", "none")))
    assert found.exit_code == 2
    assert "list.yaml: recipe: Input should be a valid dictionary" in found.stdout
    assert "broken.yaml: not YAML" in found.stdout
    assert "none.yaml: cannot be read" in found.stdout


def test_check_of_all_shipped_recipes_says_which_cannot_be_served() -> None:
    found = assay("recipe", "check", *(str(path) for path in sorted(FOLDER.glob("*.yaml"))))
    assert found.exit_code == 0, found.stdout
    assert "dora-small-data.yaml: right; dora weights need a server of their own" in found.stdout
    assert "reward.yaml: right; the reward model is kept and never served" in found.stdout
