"""Weights at rest: sealed once they are trained, and plain only in the run that goes on from them, while it runs."""

from pathlib import Path

import pytest

from data_contracts.digests import tree_digest, tree_files
from data_contracts.errors import Unavailable
from data_contracts.manifests import CheckpointManifest
from pipelines.recipes.product import Product
from pipelines.settings import Settings
from pipelines.stages.train import steps
from pipelines.stages.train.job import RunFiles, TrainJob
from pipelines.wiring import Line
from tests.support.searching import FormulaTrainer, export_chats, make_base, make_splits


class Stopped:
    """Notes what the parent is, and stops; ``before`` is done to the run directory first."""

    def __init__(self) -> None:
        self.parents: list[str] = []

    def launch(self, job_file: Path, run_dir: Path) -> None:
        job = TrainJob.model_validate_json(job_file.read_bytes())
        assert job.parent == RunFiles(run_dir).parent
        self.parents.append(tree_digest(tree_files(job.parent)))
        raise Unavailable("stopped")


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    export_chats(monkeypatch)
    return Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust"))


@pytest.fixture
def product(line: Line) -> Product:
    return line.product("billing-assistant")


@pytest.fixture
def parent(line: Line, product: Product, tmp_path: Path) -> CheckpointManifest:
    return steps.sft(line, product, make_base(line, tmp_path / "base"), make_splits(line), FormulaTrainer())[0]


def plain(line: Line) -> list[Path]:
    return [path for path in line.home.rglob("*") if path.name == "adapter_model.safetensors"]


def test_what_was_trained_is_sealed_and_nothing_of_it_stays_in_its_run(
    line: Line, product: Product, parent: CheckpointManifest
) -> None:
    assert plain(line) == []
    with line.store.opened(parent.weights) as folder:
        assert tree_digest(tree_files(folder)) == parent.weights
    assert line.tenant_keys.public(product.tenant)


def test_the_weights_that_are_gone_on_from_lie_in_the_run_while_it_runs(
    line: Line, product: Product, parent: CheckpointManifest, tmp_path: Path
) -> None:
    base, splits, stopped = make_base(line, tmp_path / "base-again"), make_splits(line), Stopped()
    preferences = splits.model_copy(update={"stage": "preferences"})
    line.store.put_manifest(preferences)
    for _ in range(2):
        with pytest.raises(Unavailable, match="stopped"):
            steps.tuned(line, product, base, parent, splits, preferences, stopped)
        assert plain(line) == []
    assert stopped.parents == [parent.weights] * 2


def test_weights_that_cannot_be_read_any_more_are_trained_again(
    line: Line, product: Product, parent: CheckpointManifest, tmp_path: Path
) -> None:
    """A shred lost them, and no archive held them: no release had been made of them."""
    base, splits, trainer = make_base(line, tmp_path / "base-again"), make_splits(line), FormulaTrainer()
    assert steps.sft(line, product, base, splits, trainer) == (parent, True)
    line.tenant_keys.destroy(product.tenant)
    line.tenant_keys.renew(product.tenant)
    assert steps.sft(line, product, base, splits, trainer) == (parent, False)
    assert len(trainer.launched) == 1
    assert line.store.readable(parent.weights)
