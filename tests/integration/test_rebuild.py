"""Weights made again from their manifests, with the real trainer on a tiny model."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_contracts.digests import tree_digest, tree_files
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import CheckpointManifest, ModelManifest
from pipelines.recipes.product import Product
from pipelines.settings import Settings
from pipelines.stages.train import rebuild as rebuilding
from pipelines.stages.train import steps
from pipelines.stages.train.rebuild import TOLERANCE, farthest, rebuild
from pipelines.wiring import Line
from tests.support.stepping import InProcessOfItsOwn, export_made_up_rows, made_up_data, product_with
from tests.support.tiny import make_tiny_base
from tests.support.training import make_recipe

Made = tuple[Line, Product, ModelManifest]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A model after SFT and DPO, and a line whose product has changed since."""
    folder = tmp_path_factory.mktemp("line")
    line = Line(Settings(home=folder / "home", trust_root=folder / "trust"))
    product, launcher = product_with(folder, make_recipe()), InProcessOfItsOwn()
    splits, pairs = made_up_data(line, "splits"), made_up_data(line, "preferences")
    with pytest.MonkeyPatch.context() as patch:
        export_made_up_rows(patch)
        base, _ = steps.base(line, product, str(make_tiny_base(folder / "tiny")))
        sft, _ = steps.sft(line, product, base, splits, launcher)
        dpo, _ = steps.tuned(line, product, base, sft, splits, pairs, launcher)
        model, _ = steps.selected(line, product, base, sft, dpo, splits)
        yield line, product_with(folder, make_recipe(seed=99)), model


def launch(environment: Mapping[str, str]) -> InProcessOfItsOwn:
    return InProcessOfItsOwn()


def test_a_model_is_made_again_to_the_byte(made: Made, tmp_path: Path) -> None:
    line, product, model = made
    before = sorted(path.name for path in (line.home / "training").iterdir())
    asked: list[Mapping[str, str]] = []

    def listening(environment: Mapping[str, str]) -> InProcessOfItsOwn:
        asked.append(environment)
        return launch(environment)

    found = rebuild(line, product, model, listening, tmp_path / "again")
    then = line.store.get_json(line.store.get_manifest(model.checkpoint, CheckpointManifest).environment)
    assert asked == [{"OMP_NUM_THREADS": then["threads"]}] * 2, "as many threads as then"
    assert [(each.stage, each.outcome, each.made == each.kept) for each in found] == [
        ("sft", "equal", True),
        ("preference", "equal", True),
    ]
    assert found[-1].made == model.weights == tree_digest(tree_files(tmp_path / "again"))
    assert sorted(path.name for path in (line.home / "training").iterdir()) == before, "nothing is left behind"
    with pytest.raises(BadInput, match="is there already"):
        rebuild(line, product, model, launch, tmp_path / "again")


def test_one_that_was_killed_goes_on(made: Made) -> None:
    line, product, model = made
    launched: list[Path] = []

    class Dies(InProcessOfItsOwn):
        def launch(self, job_file: Path, run_dir: Path) -> None:
            launched.append(run_dir)
            if len(launched) == 2:
                raise KeyboardInterrupt
            super().launch(job_file, run_dir)

    with pytest.raises(KeyboardInterrupt):
        rebuild(line, product, model, lambda _: Dies())
    assert not (launched[1] / "rows").exists(), "rows lie on disk while they are learned from, and no longer"
    found = rebuild(line, product, model, lambda _: Dies())
    assert [each.outcome for each in found] == ["equal", "equal"]
    assert launched == [launched[0], launched[1], launched[1]], "what was done is not done again"


def test_where_the_bytes_differ_it_says_how_far_and_since_when(made: Made, tmp_path: Path) -> None:
    """As if it had been made elsewhere: one tensor a little off, another package, another loss at step 2."""
    line, product, model = made
    kept = line.store.get_manifest(model.checkpoint, CheckpointManifest)
    elsewhere = tmp_path / "elsewhere"
    with line.store.opened(kept.weights) as folder:
        shutil.copytree(folder, elsewhere)
    tensors = load_file(elsewhere / "adapter_model.safetensors")
    moved = max(tensors, key=lambda name: float(tensors[name].norm()))
    tensors[moved] = tensors[moved] * 1.01
    save_file(tensors, elsewhere / "adapter_model.safetensors")
    curve = line.store.get_json(kept.curve)
    curve[2]["loss"] += 0.5
    environment = line.store.get_json(kept.environment) | {"trl": "0.1"}
    other = kept.model_copy(
        update={
            "weights": line.store.put_tree(elsewhere),
            "curve": line.store.put_json(curve),
            "environment": line.store.put_json(environment),
        }
    )
    copied = model.model_copy(update={"checkpoint": line.store.put_manifest(other)})
    first, second = rebuild(line, product, copied, launch)
    assert first.outcome == "equal"
    assert (second.outcome, second.tensor, second.step) == ("within tolerance", moved, curve[2]["step"])
    assert second.distance == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert list(second.environment) == ["trl"]
    assert second.environment["trl"][0] == "0.1"


@pytest.mark.parametrize("harm", ["far", "missing", "shape"])
def test_what_is_far_apart_is_told(tmp_path: Path, harm: str) -> None:
    kept, made = tmp_path / "kept", tmp_path / "made"
    tensors = {"a": torch.ones(4), "b": torch.ones(2, 2)}
    harmed = {"far": tensors | {"b": torch.zeros(2, 2)}, "missing": {"a": tensors["a"]}}
    for folder, some in ((kept, tensors), (made, harmed.get(harm, tensors | {"b": torch.ones(3)}))):
        folder.mkdir()
        save_file(some, folder / "model.safetensors")
    found = farthest(kept, made)
    assert found.tensor == "b"
    assert found.distance > TOLERANCE
    assert json.dumps(farthest(kept, kept)) == '["", 0.0]'


def test_what_learned_erased_rows_is_not_made_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    line, product, model = made
    monkeypatch.setattr(rebuilding, "erased_rows", lambda parts, data: ["row"])
    with pytest.raises(Refused, match=r"1 rows of data set .* were erased"):
        rebuild(line, product, model, launch)
