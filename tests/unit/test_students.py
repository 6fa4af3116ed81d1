"""A student that is some layers of its teacher: deterministic, named, under the same licence, and it runs."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from data_contracts.digests import tree_digest, tree_files
from data_contracts.errors import BadInput
from evals.suite import load_suites
from pipelines.recipes.product import ROOT, load_product
from pipelines.settings import Settings
from pipelines.stages.train import steps
from pipelines.wiring import Line
from resources.base_model import BaseModels
from resources.layers import INDEX, keep_layers, parse_layers
from tests.support.tiny import make_tiny_base


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_base(tmp_path_factory.mktemp("teacher") / "tiny")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return folder


@given(st.sets(st.integers(0, 200), min_size=1))
def test_any_rising_numbers_can_be_written(numbers: set[int]) -> None:
    assert parse_layers(",".join(map(str, sorted(numbers)))) == tuple(sorted(numbers))


def test_ranges_hold_both_ends_and_may_skip() -> None:
    assert parse_layers("0-3,8,10-15/2") == (0, 1, 2, 3, 8, 10, 12, 14)


@pytest.mark.parametrize("text", ["", "a", "3-1", "2,1", "1,1", "0-4/0", "0-3,2", "-1"])
def test_what_is_no_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="layers"):
        parse_layers(text)


def test_a_student_has_the_layers_that_it_keeps_and_speaks(teacher: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    line = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust"))
    product = load_product("billing-assistant").model_copy(update={"base": f"pruned:1:{teacher}"})
    student, hit = steps.base(line, product, product.base)
    assert (hit, student.licence, student.name) == (False, "mit", "tiny-1-layers")
    assert student.source == "pruned:1:folder"
    assert steps.base(line, product, product.base) == (student, True)

    folder = line.store.tree(student.tree)
    whole, kept = load_file(teacher / "model.safetensors"), load_file(folder / "model.safetensors")
    for name, tensor in kept.items():
        assert torch.equal(tensor, whole[name.replace("layers.0.", "layers.1.")])
    assert len(whole) - len(kept) == sum(".layers.0." in name for name in whole)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.num_hidden_layers == 1
    assert torch.isfinite(model(torch.tensor([[1, 5, 9]])).logits).all()
    assert student.parameters == sum(tensor.numel() for tensor in kept.values())


def test_all_layers_are_the_teacher_itself_and_each_choice_has_its_own_name(teacher: Path, tmp_path: Path) -> None:
    models = BaseModels()
    digests = {}
    for source in (str(teacher), f"pruned:0-1:{teacher}", f"pruned:0:{teacher}", f"pruned:1:{teacher}"):
        origin = models.locate(source)
        folder = tmp_path / str(len(digests))
        models.write(origin, folder)
        digests[source] = (origin.content, tree_digest(tree_files(folder)))
    assert len({content for content, _ in digests.values()}) == 4
    whole, same, *_ = (load_file(tmp_path / str(number) / "model.safetensors") for number in range(2))
    assert whole.keys() == same.keys()
    assert len({tree for _, tree in digests.values()}) >= 3


def test_shards_and_what_the_configuration_says_by_layer_follow(teacher: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    folder.mkdir()
    tensors = load_file(teacher / "model.safetensors")
    halves = [{n: t for n, t in tensors.items() if (".layers.0." in n) is first} for first in (True, False)]
    for number, half in enumerate(halves):
        save_file(half, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    (folder / INDEX).write_text("{}")
    config = json.loads((teacher / "config.json").read_text()) | {
        "layer_types": ["sliding_attention", "full_attention"]
    }
    (folder / "config.json").write_text(json.dumps(config))
    keep_layers(folder, [1])
    assert [path.name for path in folder.glob("*.safetensors")] == ["model-1.safetensors"]
    table = json.loads((folder / INDEX).read_text())["weight_map"]
    assert table == dict.fromkeys(load_file(folder / "model-1.safetensors"), "model-1.safetensors")
    assert json.loads((folder / "config.json").read_text())["layer_types"] == ["full_attention"]


def test_what_cannot_be_a_student_is_refused(teacher: Path, tmp_path: Path) -> None:
    models = BaseModels()
    with pytest.raises(BadInput, match="has layers 0 to 1, and no layer 2"):
        models.write(models.locate(f"pruned:0,2:{teacher}"), tmp_path / "out")
    with pytest.raises(BadInput, match="name the layers once"):
        models.locate(f"pruned:0:pruned:0-1:{teacher}")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"num_hidden_layers": 2}))
    save_file({"h.0.weight": load_file(teacher / "model.safetensors")["model.norm.weight"]}, other / "m.safetensors")
    with pytest.raises(BadInput, match="not one stack"):
        keep_layers(other, [0])


def test_the_product_that_the_page_shows_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "distillation.md").read_text()
    shown = page.split("```yaml\n# pipelines/products/billing-student.yaml\n")[1].split("```")[0]
    (tmp_path / "billing-student.yaml").write_text(shown)
    product = load_product("billing-student", tmp_path)
    origin = BaseModels().locate(product.base)
    assert len(origin.layers) == 16
    assert origin.licence == "Apache-2.0"
    assert {suite.layer for suite in load_suites(product)} == {"product", "safety", "general"}
