"""The registry on a real MLflow with SQLite."""

from pathlib import Path

import pyrage
import pytest

from data_contracts.errors import Missing
from resources.registry import MlflowRegistry
from tests.support.line import SmallLine

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::DeprecationWarning")

FIRST, SECOND = "sha256:" + "1" * 64, "sha256:" + "2" * 64


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "README.md").write_text("# card")
    return {"adapter": folder / "adapter", "README.md": folder / "README.md"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> MlflowRegistry:
    home = tmp_path_factory.mktemp("mlflow")
    return MlflowRegistry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")


def test_a_release_becomes_one_version_with_its_files_however_often_it_is_registered(registry, files):
    version = registry.register("a", FIRST, files, {"assay.model": "m"})
    assert registry.register("a", FIRST, files, {"assay.model": "m"}) == version
    assert registry.register("a", SECOND, files, {}) != version
    found = sorted(path.name for path in registry.artifacts.rglob("*") if path.is_file())
    assert found == ["README.md", "README.md", "adapter_config.json", "adapter_config.json"]


def test_the_adapter_of_a_release_is_sealed_for_its_tenant(tmp_path):
    line = SmallLine(tmp_path / "line")
    home = line.parts.home
    line.parts.__dict__["registry"] = MlflowRegistry(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts")
    release = line.release()
    kept = {path.name: path for path in (home / "artifacts").rglob("*") if path.parent.name == "adapter"}
    assert sorted(kept) == ["adapter_config.json.age", "adapter_model.safetensors.age"]
    key = (home / "vault" / "tenants" / f"{release.tenant}.key").read_text().splitlines()[-1]
    opened = pyrage.decrypt(kept["adapter_model.safetensors.age"].read_bytes(), [pyrage.x25519.Identity.from_str(key)])
    assert opened == (line.folder / "adapter-0" / "adapter_model.safetensors").read_bytes()
    assert not [path for path in home.rglob("*") if path.is_file() and opened[-32:] in path.read_bytes()]


def test_an_alias_points_to_a_release_and_can_be_taken_away(registry, files):
    registry.register("b", FIRST, files, {})
    registry.register("b", SECOND, files, {})
    assert registry.alias("b", "champion") is None
    registry.set_alias("b", "champion", FIRST)
    assert registry.alias("b", "champion") == FIRST
    registry.set_alias("b", "champion", SECOND)
    assert registry.alias("b", "champion") == SECOND
    registry.set_alias("b", "champion", None)
    registry.set_alias("b", "champion", None)
    assert registry.alias("b", "champion") is None
    assert registry.alias("nobody", "champion") is None


def test_a_version_is_tagged_with_its_releases_state(registry, files):
    registry.register("d", FIRST, files, {"assay.release": FIRST})
    registry.register("d", SECOND, files, {})
    assert registry.states("d") == {FIRST: None, SECOND: None}
    registry.set_state("d", FIRST, "staging")
    registry.set_state("d", FIRST, "production")
    assert registry.states("d") == {FIRST: "production", SECOND: None}
    assert registry.states("nobody") == {}
    with pytest.raises(Missing, match="not in the model registry"):
        registry.set_state("nobody", FIRST, "staging")


def test_an_alias_to_what_is_not_registered_is_refused(registry, files):
    registry.register("c", FIRST, files, {})
    with pytest.raises(Missing, match="not in the model registry"):
        registry.set_alias("c", "champion", SECOND)
