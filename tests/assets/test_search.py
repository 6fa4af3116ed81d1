"""The search behind Dagster: its result is a recipe to use, with importance and history in the metadata."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets import search as assets_search
from assets.groups import PRODUCTS
from data_contracts.manifests import BaseManifest, DatasetManifest
from pipelines.recipes.recipe import load_recipe
from tests.assets.conftest import PRODUCT, Runner, reason
from tests.support.searching import RATE, FormulaTrainer, at, export_chats, make_search


@pytest.fixture
def inputs(run: Runner) -> list[dg.AssetsDefinition]:
    @dg.asset(key=["model", "base"], partitions_def=PRODUCTS)
    def base() -> dg.MaterializeResult[BaseManifest]:
        return dg.MaterializeResult(value=run.small.base)

    @dg.asset(key=["data", "splits"], partitions_def=PRODUCTS)
    def splits() -> dg.MaterializeResult[DatasetManifest]:
        return dg.MaterializeResult(value=run.small.splits)

    return [base, splits]


def config(folder: Path, **changes: Any) -> dict[str, dict[str, str]]:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(make_search(**changes).model_dump(mode="json")))
    return {"search__recipe": {"search": str(file), "out": str(folder / "best.yaml")}}


def test_a_search_leaves_a_recipe_and_shows_what_mattered(
    run: Runner, inputs: list[dg.AssetsDefinition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = FormulaTrainer()
    export_chats(monkeypatch)
    monkeypatch.setattr(assets_search, "PipesLauncher", lambda context, uri: trainer)

    result = run([*inputs, assets_search.recipe], config(tmp_path, trials=6))

    assert result.success
    assert len(trainer.launched) == 6
    (made,) = result.asset_materializations_for_node("search__recipe")
    assert made.metadata["history"].value.startswith("![validation loss by trial](data:image/png;base64,")
    assert RATE in made.metadata["importance"].value
    best = load_recipe(tmp_path / "best.yaml").payload()
    assert f"{RATE} {at(best, RATE)}" in made.metadata["best"].value
    product = run.small.parts.product(PRODUCT)
    shipped = product.file("recipe", product.recipe).read_text().splitlines()
    changed = [line for line in (tmp_path / "best.yaml").read_text().splitlines() if line not in shipped]
    assert all("learning_rate:" in line or "rank:" in line for line in changed)


def test_a_search_without_a_file_says_which_there_are(
    run: Runner, inputs: list[dg.AssetsDefinition], tmp_path: Path
) -> None:
    result = run([*inputs, assets_search.recipe], {"search__recipe": {"search": "nothing"}})
    assert not result.success
    assert "known searches: billing-assistant" in reason(result)
