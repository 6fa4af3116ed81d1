"""Weights made again from their manifests, and compared with those that were kept: that a release is what its chain
says can be tried, not only checked.

On the same stack the bytes are equal. Elsewhere sums are rounded differently, and training carries that on: then each
tensor is held against `TOLERANCE`, and what is told is where the two runs first parted.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from data_contracts.digests import Digest, hex_of, tree_digest, tree_files
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest, Stage
from pipelines.recipes.product import Product
from pipelines.recipes.recipe import Recipe
from pipelines.stages.data.integrity import erased_rows
from pipelines.stages.protocols import Parts
from pipelines.stages.train.at_hand import rows_at_hand
from pipelines.stages.train.job import RunFiles, TrainJob, TrainResult
from pipelines.stages.train.launcher import TrainerLauncher
from pipelines.stages.train.steps import probe_suites

TOLERANCE = 0.05
"""Of a tensor's norm: so far the Euclidean distance of the two may be."""

Launch = Callable[[Mapping[str, str]], TrainerLauncher]
"""A launcher that adds these variables to the trainer's environment."""


class Rebuilt(Frozen):
    """One checkpoint, as kept and as made again. ``distance`` is the largest of a tensor, as a share of its norm, and
    ``tensor`` is that one; ``step`` is the first whose loss differs. ``environment`` names what differs of what it was
    computed with: (then, now)."""

    stage: Stage
    checkpoint: Digest
    kept: Digest
    made: Digest
    outcome: Literal["equal", "within tolerance", "different"]
    tensor: str = ""
    distance: float = 0.0
    step: int | None = None
    environment: dict[str, tuple[str, str]] = {}


class Parted(NamedTuple):
    tensor: str
    distance: float


def rebuild(
    parts: Parts, product: Product, model: ModelManifest, launch: Launch, out: Path | None = None
) -> list[Rebuilt]:
    """Train every checkpoint that led to ``model`` again, each from what was made of the one before. Killed, it goes on
    where it was. The weights that it ends with are copied to the new folder ``out``, and else not kept. Raises
    `Refused` where rows that were learned from have been erased, `BadInput` where ``out`` is there already."""
    if out is not None and out.exists():
        raise BadInput(f"{out} is there already: name a new folder")
    chain = [parts.store.get_manifest(model.checkpoint, CheckpointManifest)]
    while chain[0].parent is not None:
        chain.insert(0, parts.store.get_manifest(chain[0].parent, CheckpointManifest))
    sets = {each.digest: parts.store.get_manifest(each.datasets[-1], DatasetManifest) for each in chain}
    for data in sets.values():
        if erased := erased_rows(parts, data):
            raise Refused(
                f"{len(erased)} rows of data set {data.digest} were erased: what learned them is not made again"
            )
    found: list[Rebuilt] = []
    parent: Path | None = None
    folders = [_run_dir(parts, checkpoint) for checkpoint in chain]
    for checkpoint, folder in zip(chain, folders, strict=True):
        job = _job(parts, product, checkpoint, parent, folder)
        then = parts.store.get_json(checkpoint.environment)
        _train(parts, job, sets[checkpoint.digest], launch({"OMP_NUM_THREADS": then.get("threads", "2")}))
        parent = RunFiles(job.run_dir).weights
        found.append(_compared(parts, checkpoint, job))
    if out is not None and parent is not None:
        shutil.copytree(parent, out)
    for folder in folders:
        shutil.rmtree(folder)
    return found


def _run_dir(parts: Parts, checkpoint: CheckpointManifest) -> Path:
    """Beside the runs of the line, where erasure looks for rows and what learned them."""
    return parts.home.resolve() / "training" / f"rebuild-{hex_of(checkpoint.digest)[:24]}"


def _job(
    parts: Parts, product: Product, checkpoint: CheckpointManifest, parent: Path | None, run_dir: Path
) -> TrainJob:
    """As the step made it, of what the manifests name."""
    store, files = parts.store, RunFiles(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    template = run_dir / "template.jinja"
    template.write_bytes(store.get_bytes(checkpoint.template))
    recipe = store.get_manifest(checkpoint.recipe, Recipe)
    teacher = None if checkpoint.teacher is None else store.get_manifest(checkpoint.teacher, BaseManifest)
    return TrainJob(
        product=checkpoint.product,
        stage=checkpoint.stage,
        recipe=recipe,
        base=store.tree(store.get_manifest(checkpoint.base, BaseManifest).tree),
        base_digest=checkpoint.base,
        template=template.resolve(),
        train_rows=files.rows / "train.jsonl",
        validation_rows=files.rows / "validation.jsonl",
        row_names={},
        parent=parent,
        teacher=None if teacher is None else store.tree(teacher.tree),
        run_dir=run_dir,
        probe_suites=probe_suites(product, recipe),
    )


def _train(parts: Parts, job: TrainJob, data: DatasetManifest, launcher: TrainerLauncher) -> None:
    files = RunFiles(job.run_dir)
    if not files.result.exists():
        with rows_at_hand(parts, job, data):
            launcher.launch(files.job, job.run_dir)
    for heavy in (files.work, files.checkpoints, files.sweep):
        shutil.rmtree(heavy, ignore_errors=True)


def _compared(parts: Parts, checkpoint: CheckpointManifest, job: TrainJob) -> Rebuilt:
    files = RunFiles(job.run_dir)
    result = TrainResult.model_validate_json(files.result.read_bytes())
    made = tree_digest(tree_files(files.weights))
    told = {"stage": checkpoint.stage, "checkpoint": checkpoint.digest, "kept": checkpoint.weights, "made": made}
    if made == checkpoint.weights:
        return Rebuilt.model_validate(told | {"outcome": "equal"})
    with parts.store.opened(checkpoint.weights) as kept_weights:
        parted = farthest(kept_weights, files.weights)
    kept = {point["step"]: point.get("loss") for point in parts.store.get_json(checkpoint.curve)}
    steps = [each.step for each in result.curve if each.step not in kept or kept[each.step] != each.loss]
    then, now = parts.store.get_json(checkpoint.environment), result.environment
    return Rebuilt.model_validate(
        told
        | {
            "outcome": "within tolerance" if parted.distance <= TOLERANCE else "different",
            "tensor": parted.tensor,
            "distance": round(parted.distance, 6),
            "step": steps[0] if steps else None,
            "environment": {
                name: (str(then.get(name, "")), str(now.get(name, "")))
                for name in sorted({*then, *now})
                if then.get(name) != now.get(name)
            },
        }
    )


def farthest(kept: Path, made: Path) -> Parted:
    """The tensor that lies farthest from the kept one; infinitely far where one has none, or another shape."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = (
        {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}
        for folder in (made, kept)
    )
    worst = Parted("", 0.0)
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape:
            return Parted(name, float("inf"))
        a, b = ours[name].to(torch.float64), theirs[name].to(torch.float64)
        norm = float(b.norm())
        gap = float((a - b).norm())
        distance = gap / norm if norm else float("inf") if gap else 0.0
        if distance > worst.distance:
            worst = Parted(name, distance)
    return worst
