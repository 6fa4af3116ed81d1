"""What Dagster shows of a trained checkpoint: its curves, and what the run that made it took."""

import json
from pathlib import Path

import dagster as dg

from assets.training import _trained
from data_contracts.digests import sha256_bytes
from data_contracts.manifests import CheckpointManifest
from pipelines.settings import Settings
from pipelines.stages.train.run_record import run_dir
from pipelines.wiring import Line
from tests.support.runs import make_record


def test_a_checkpoint_is_shown_with_its_curves_and_its_run(tmp_path: Path) -> None:
    line = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust"))
    digest = sha256_bytes(b"anything")
    key = make_record("a1").action_key
    curve = [{"step": step, "loss": 2 / step, "validation_loss": 2.5 / step, "grad_norm": 1.0} for step in (1, 2)]
    manifest = CheckpointManifest(
        product="test-product",
        stage="sft",
        method="lora",
        base=digest,
        template=digest,
        recipe=digest,
        datasets=(digest,),
        step=2,
        weights=digest,
        metrics={"validation_loss": 1.25},
        curve=line.store.put_json(curve),
        environment=digest,
        action_key=key,
    )
    bare = _trained(line, (manifest, False)).metadata
    assert "run" not in bare, "of a checkpoint from elsewhere there is no record"

    line.runs.put(make_record("a1", seconds=30.0, tokens_per_second=120.5, cost=0.25))
    line.runs.put(make_record("a0", outcome="failed"))
    metrics = run_dir(line, key) / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("".join(json.dumps({"step": step, "tokens_per_second": 100.0}) + "\n" for step in (1, 2)))
    shown = _trained(line, (manifest, True)).metadata
    assert (shown["run"], shown["seconds"], shown["tokens_per_second"], shown["cost"]) == ("a1", 30.0, 120.5, 0.25)
    assert shown["validation_loss"] == dg.MetadataValue.float(1.25)
    pictures = [each["curves"].value for each in (bare, shown)]
    assert all("data:image/png;base64," in picture for picture in pictures)
    assert len(pictures[1]) > len(pictures[0]), "a panel for the speed is drawn where it is known"
