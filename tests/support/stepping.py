"""The line's steps of training without a data plane: made-up data sets, rows from the test's hands, real training."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Refused
from data_contracts.manifests import Counts, DatasetManifest
from pipelines.recipes.product import Product, load_product
from pipelines.recipes.recipe import Recipe
from pipelines.stages.data.item import Item
from pipelines.stages.train import at_hand
from pipelines.wiring import Line
from tests.support.data import ORIGIN
from tests.support.trainer import Trainer
from tests.support.training import make_chats, make_pairs, write_rows


class InProcessOfItsOwn:
    """A `TrainerLauncher` over the fork server."""

    launched = 0

    def launch(self, job_file: Path, run_dir: Path) -> None:
        self.launched += 1
        trainer = Trainer(job_file)
        if trainer.wait() != 0:
            raise Refused(trainer.log.read_text())


def product_with(tmp_path: Path, recipe: Recipe) -> Product:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return load_product("billing-assistant").model_copy(update={"recipe": str(path)})


def made_up_data(line: Line, stage: str) -> DatasetManifest:
    digest = sha256_bytes(stage.encode())
    names = [sha256_bytes(f"{stage} {number}".encode()) for number in range(10)]
    manifest = DatasetManifest(
        product="billing-assistant",
        stage=stage,
        root=line.datasets.write(Item(name, "somebody", ORIGIN, "{}") for name in names).root,
        counts=Counts(rows_in=10, rows_out=10),
        parts={"train": digest, "validation": digest},
        synthetic_share=1.0 if stage == "splits" else 0.5,
        facts={"licences": {"CC0-1.0": 9, "MIT": 1}},
        action_key=digest,
    )
    line.store.put_manifest(manifest)
    return manifest


def export_made_up_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from this test's hands in place of the data room's."""

    def write(parts: Any, manifest: DatasetManifest, split: str, path: Path) -> list[Digest]:
        rows = make_chats(10) if manifest.stage == "splits" else make_pairs(10)
        write_rows(path, rows)
        return [row.digest for row in rows]

    monkeypatch.setattr(at_hand, "write_training_file", write)
