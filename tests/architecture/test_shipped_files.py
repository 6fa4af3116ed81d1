"""Every YAML that ships is read by its own schema, in which an unknown key is an error."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data_contracts.contract import load_contract
from data_contracts.policy import load_policy as load_data_policy
from evals.judge import load_judge
from evals.judge import load_policy as load_judge_policy
from evals.policy import load_policy as load_gate_policy
from evals.speedtest import load_speed_test, speed_of
from evals.suite import load_suite, load_suites
from pipelines.recipes.product import ROOT, Product, load_product
from pipelines.recipes.recipe import load_recipe
from pipelines.recipes.search import load_search
from pipelines.stages.data.distil import load_distillation
from pipelines.stages.data.synthetic.plan import load_plan
from pipelines.stages.signals.policy import load_policy as load_signal_policy
from resources.kubernetes_job import load_place

LOADERS: dict[str, Callable[[Path], object]] = {
    "data_contracts/contracts": load_contract,
    "data_contracts/policies": load_data_policy,
    "evals/judges": lambda path: load_judge(str(path)),
    "evals/judges/policies": lambda path: load_judge_policy(str(path)),
    "evals/policies": load_gate_policy,
    "evals/speed": load_speed_test,
    "evals/suites": load_suite,
    "pipelines/launchers": load_place,
    "pipelines/distillation": load_distillation,
    "pipelines/loop/gate.yaml": load_gate_policy,
    "pipelines/loop/products": lambda path: load_product(str(path)),
    "pipelines/loop/recipe.yaml": load_recipe,
    "pipelines/loop/signals.yaml": load_signal_policy,
    "pipelines/products": lambda path: load_product(str(path)),
    "pipelines/recipes": load_recipe,
    "pipelines/searches": load_search,
    "pipelines/stages/signals": load_signal_policy,
    "pipelines/synthesis": load_plan,
}
PACKAGES = ["assets", "data_contracts", "evals", "pipelines", "resources"]
WORDS = ROOT / "pipelines/stages/data/phrases.yaml"
"""What the generator's personas say: data that its own tests read, no settings."""
SHIPPED = [
    path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.yaml")) if path != WORDS
]


def load(path: Path, file: Path) -> object:
    """As what is shipped as ``path``: by its folder, or by itself where a folder holds several kinds."""
    return (LOADERS.get(path.as_posix()) or LOADERS[path.parent.as_posix()])(file)


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_it_loads(path: Path) -> None:
    load(path, ROOT / path)


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_an_unknown_key_is_refused(path: Path, tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / path).read_text()) | {"colour": "blue"}
    changed = tmp_path / path.name
    changed.write_text(yaml.safe_dump(document))

    with pytest.raises(Exception, match=r"(?i)colour"):
        load(path, changed)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines/products").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_product_names_only_files_that_are_there(path: Path) -> None:
    product: Product = load_product(str(path))

    assert product.name == path.stem
    assert product.file("recipe", product.recipe)
    assert product.file("template", product.template)
    assert product.file("data_policy", product.data_policy)
    assert product.file("gate_policy", product.gate_policy)
    assert product.speed is None or speed_of(product)
    assert [product.file("contract", source.contract) for source in product.sources]
    assert {suite.step for suite in load_suites(product)} == {"product", "safety", "general"}
