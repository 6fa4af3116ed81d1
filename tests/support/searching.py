"""What a search needs: a line with a data set, rows from this hand, and a trainer whose loss is a formula."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Refused, Unavailable
from data_contracts.manifests import BaseManifest, Counts, DatasetManifest
from pipelines.recipes.product import Product, load_product
from pipelines.recipes.recipe import Recipe
from pipelines.recipes.search import Search
from pipelines.stages.data.item import Item
from pipelines.stages.train import at_hand
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob, TrainResult
from pipelines.wiring import Line
from tests.support.data import ORIGIN
from tests.support.training import make_chats, write_rows

STEPS = (3, 6)
SCHEDULE = "sft.schedule"
"""The recipe's section with the schedule of SFT."""
RATE = f"{SCHEDULE}.learning_rate"


def at(document: Any, key: str) -> Any:
    """The value under a dotted key."""
    for name in key.split("."):
        document = document[name]
    return document


def make_search(**changes: Any) -> Search:
    """Learning rates of five orders of magnitude, and two ranks that make no difference to the formula."""
    values = {
        "space": {
            RATE: {"low": 1e-5, "high": 1.0, "log": True},
            "lora.rank": {"choices": [2, 4]},
        },
        "sampler": "random",
        "seed": 3,
        "trials": 5,
        "pruner": None,
        "device_hours": 1.0,
    }
    return Search.model_validate(values | changes)


def make_product(folder: Path, recipe: Recipe) -> Product:
    path = folder / "recipe.yaml"
    path.write_text("# as a person wrote it\n" + yaml.safe_dump(recipe.model_dump(mode="json")))
    return load_product("billing-assistant").model_copy(update={"recipe": str(path)})


def make_splits(line: Line) -> DatasetManifest:
    digest = sha256_bytes(b"splits")
    names = [sha256_bytes(f"row {number}".encode()) for number in range(10)]
    manifest = DatasetManifest(
        product="billing-assistant",
        stage="splits",
        root=line.datasets.write(Item(name, "somebody", ORIGIN, "{}") for name in names).root,
        counts=Counts(rows_in=10, rows_out=10),
        parts={"train": digest, "validation": digest},
        synthetic_share=1.0,
        action_key=digest,
    )
    line.store.put_manifest(manifest)
    return manifest


def make_base(line: Line, folder: Path) -> BaseManifest:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(8))
    tree = line.store.put_tree(folder)
    return BaseManifest(name="made-up", source="folder", licence="mit", tree=tree, parameters=0)


def export_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from this hand in place of the data room's."""

    def write(parts: Any, manifest: DatasetManifest, split: str, path: Path) -> list[Digest]:
        rows = make_chats(10)
        write_rows(path, rows)
        return [row.digest for row in rows]

    monkeypatch.setattr(at_hand, "write_training_file", write)


def loss_of(learning_rate: float, step: int) -> float:
    """Least at a learning rate of 0.01."""
    return 1.0 + abs(math.log10(learning_rate) + 2) - step / 100


class FormulaTrainer:
    """A `TrainerLauncher`. Writes what the trainer writes, with a validation loss by `loss_of`, and waits ``pause``
    seconds after each for somebody to ask it to stop. Above ``explodes`` it fails; the launch numbered ``dies`` is cut
    off in the middle, as when the search is killed."""

    def __init__(self, pause: float = 0.0, explodes: float = 10.0, dies: int = -1) -> None:
        self.pause, self.explodes, self.dies = pause, explodes, dies
        self.launched: list[Path] = []
        self.rates: list[float] = []

    def launch(self, job_file: Path, run_dir: Path) -> None:
        files = RunFiles(run_dir)
        rate = at(TrainJob.model_validate_json(job_file.read_bytes()).recipe.payload(), RATE)
        self.launched.append(run_dir)
        self.rates.append(rate)
        files.stop.unlink(missing_ok=True)
        (files.checkpoints / "step-1").mkdir(parents=True)
        if rate > self.explodes:
            raise Refused("the loss is nan")
        points = [CurvePoint(step=0, validation_loss=9.0)]
        for step in STEPS:
            points.append(CurvePoint(step=step, validation_loss=loss_of(rate, step)))
            with files.metrics.open("a") as handle:
                handle.write(json.dumps(points[-1].model_dump(exclude_none=True)) + "\n")
            deadline = time.monotonic() + self.pause
            while time.monotonic() < deadline and not files.stop.exists():
                time.sleep(0.02)
            if len(self.launched) - 1 == self.dies:
                raise KeyboardInterrupt
            if files.stop.exists():
                raise Unavailable("stopped")
        files.weights.mkdir()
        (files.weights / "adapter_model.safetensors").write_text(str(rate))
        metrics = {"validation_loss": loss_of(rate, STEPS[-1]), "validation_loss_start": 9.0}
        result = TrainResult(step=STEPS[-1], metrics=metrics, curve=tuple(points), environment={})
        files.result.write_text(result.model_dump_json())
