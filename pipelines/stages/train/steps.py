"""Base -> SFT -> tuned -> selected. Each step returns its manifest and whether it was there already.

The trainer is handed a folder named by the action key, so that a killed run is found again and resumed.
"""

import shutil
import tempfile
import time
from pathlib import Path

from pydantic import JsonValue

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest
from data_contracts.errors import BadInput, Refused, Unavailable
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest, Stage
from data_contracts.policy import check_teacher, load_policy
from evals.suite import is_probe, load_suites
from pipelines.recipes.product import Product
from pipelines.recipes.recipe import TUNING, Recipe, load_recipe
from pipelines.stages.data.integrity import erased_rows
from pipelines.stages.protocols import Parts
from pipelines.stages.train import run_record
from pipelines.stages.train.at_hand import parent_at_hand, rows_at_hand
from pipelines.stages.train.base import BaseOrigin, count_parameters
from pipelines.stages.train.hardware import computes_bf16
from pipelines.stages.train.job import RunFiles, TrainJob, TrainResult
from pipelines.stages.train.launcher import TrainerLauncher
from pipelines.stages.train.leftovers import forget_store, store_of

_HERE = "pipelines.stages.train"
_TRAINER = [
    f"{_HERE}.{name}"
    for name in (
        *("anchor", "checkpoints", "drawn", "entry", "environment", "fit", "guards", "job", "keeper", "model"),
        *("note", "parity", "probes", "ranks", "rewards", "rows", "sweep", "trainers", "watch"),
    )
] + ["evals.answers"]


def base(parts: Parts, product: Product, source: str) -> tuple[BaseManifest, bool]:
    """The product's base model."""
    return stored_base(parts, source)


def stored_base(parts: Parts, source: str) -> tuple[BaseManifest, bool]:
    """The base model from ``source`` (see `BaseSource.locate`) as a tree in the store, converted once."""
    origin = parts.bases.locate(source)

    def work() -> BaseManifest:
        with tempfile.TemporaryDirectory() as folder:
            parts.bases.write(origin, Path(folder))
            return BaseManifest(
                name=origin.name,
                source=origin.source,
                licence=origin.licence,
                tree=parts.store.put_tree(Path(folder)),
                parameters=count_parameters(Path(folder)),
            )

    return remembered(
        parts.store, _base_key(origin), BaseManifest, work, whole=lambda manifest: parts.store.has(manifest.tree)
    )


def known_base(parts: Parts, origin: BaseOrigin) -> BaseManifest | None:
    """What `base` made of this origin before, if it is still there."""
    digest = parts.store.get_action(_base_key(origin))
    if digest is None or not parts.store.has(digest):
        return None
    manifest = parts.store.get_manifest(digest, BaseManifest)
    return manifest if parts.store.has(manifest.tree) else None


def _base_key(origin: BaseOrigin) -> Digest:
    config = origin.model_dump(mode="json", exclude={"path"})
    code = code_version(f"{_HERE}.base", "resources.base_model", "resources.layers")
    return action_key("train/base", code, config, [origin.content])


def sft(
    parts: Parts, product: Product, base: BaseManifest, splits: DatasetManifest, launcher: TrainerLauncher
) -> tuple[CheckpointManifest, bool]:
    """Supervised fine-tuning on the train split; the weights of the best validated step."""
    return _trained(parts, product, "sft", _recipe(product).for_sft(), base, splits, None, launcher)


def tuned(
    parts: Parts,
    product: Product,
    base: BaseManifest,
    sft: CheckpointManifest,
    splits: DatasetManifest,
    preferences: DatasetManifest,
    launcher: TrainerLauncher,
) -> tuple[CheckpointManifest, bool]:
    """The objective that follows SFT: goes on from the SFT weights, which, frozen, are the reference too where it needs
    one. Pairs are learned from ``preferences``, prompts are taken from ``splits``.

    The result replaces the SFT weights: one adapter to serve, not two. Raises `Refused` when the recipe names no such
    objective.
    """
    recipe = _recipe(product)
    if recipe.tuning is None:
        raise Refused(f"the recipe {product.recipe} ends with SFT: add one of the sections {', '.join(TUNING)}")
    data = splits if recipe.tuning in ("grpo", "distill") else preferences
    if data is preferences and data.stage == splits.stage:
        raise Refused(f"{product.name} has no pairs for {recipe.tuning} to learn from: add a source of kind preference")
    teacher = None if recipe.distill is None else _teacher(parts, product, recipe.distill.teacher)
    return _trained(parts, product, recipe.tuning, recipe, base, data, sft, launcher, teacher)


def _teacher(parts: Parts, product: Product, source: str) -> BaseManifest:
    """The model that is learned from, as a tree in the store, found and kept like a base. Raises `Refused` when the
    product's data policy does not allow its licence."""
    manifest, _ = base(parts, product, source)
    policy = load_policy(product.file("data_policy", product.data_policy))
    check_teacher(policy, product.purpose, manifest.name, manifest.licence)
    return manifest


def selected(
    parts: Parts,
    product: Product,
    base: BaseManifest,
    sft: CheckpointManifest,
    tuned: CheckpointManifest | None,
    splits: DatasetManifest,
) -> tuple[ModelManifest, bool]:
    """The candidate. Within a stage the trainer kept the best validated step; here what followed SFT is taken when it
    lowered the validation loss of its own rows below that of the SFT weights it started from, else SFT. A reward model
    is never taken: it scores answers, and gives none."""
    recipe = _recipe(product)
    checkpoint = sft if tuned is None or tuned.stage == "reward" or not _improved(tuned) else tuned
    inputs = [base.digest, sft.digest, splits.digest, *([] if tuned is None else [tuned.digest])]
    key = action_key("train/selected", code_version(f"{_HERE}.steps"), recipe.payload(), inputs)

    def work() -> ModelManifest:
        names = dict.fromkeys([splits.digest, *checkpoint.datasets])
        sets = [parts.store.get_manifest(name, DatasetManifest) for name in names]
        rows = sum(each.counts.rows_out for each in sets)
        manifest = ModelManifest(
            product=product.name,
            base=base.digest,
            template=checkpoint.template,
            weights=checkpoint.weights,
            method=checkpoint.method,
            rank=None if recipe.lora is None else recipe.lora.rank,
            checkpoint=checkpoint.digest,
            datasets=tuple(names),
            recipe=parts.store.put_manifest(recipe),
            licences=tuple(sorted({licence for each in sets for licence in _licences(each)})),
            synthetic_share=round(sum(each.synthetic_share * each.counts.rows_out for each in sets) / rows, 6),
            action_key=key,
        )
        parts.log.append("model.selected", product.name, {"model": manifest.digest}, actor="training")
        return manifest

    return remembered(parts.store, key, ModelManifest, work)


def _recipe(product: Product) -> Recipe:
    return load_recipe(product.file("recipe", product.recipe)).resolved(computes_bf16())


def _trained(
    parts: Parts,
    product: Product,
    stage: Stage,
    recipe: Recipe,
    base: BaseManifest,
    data: DatasetManifest,
    parent: CheckpointManifest | None,
    launcher: TrainerLauncher,
    teacher: BaseManifest | None = None,
) -> tuple[CheckpointManifest, bool]:
    template = product.file("template", product.template)
    made_from = [each.digest for each in (parent, teacher) if each is not None]
    inputs = [base.digest, product.template_digest(), data.digest, *made_from]
    config: dict[str, JsonValue] = {"product": product.name, "recipe": recipe.payload()}
    key = action_key(f"train/{stage}", code_version(*_TRAINER), config, inputs, recipe.seed)
    run_dir = run_record.run_dir(parts, key)
    job = TrainJob(
        product=product.name,
        stage=stage,
        recipe=recipe,
        base=parts.store.tree(base.tree),
        base_digest=base.digest,
        template=template.resolve(),
        train_rows=RunFiles(run_dir).rows / "train.jsonl",
        validation_rows=RunFiles(run_dir).rows / "validation.jsonl",
        row_names={},
        parent=None if parent is None else RunFiles(run_dir).parent,
        teacher=None if teacher is None else parts.store.tree(teacher.tree),
        run_dir=run_dir,
        store=store_of(parts.checkpoints, run_dir),
        probe_suites=probe_suites(product, recipe),
    )

    def work() -> CheckpointManifest:
        parts.tenant_keys.recipient(product.tenant)  # refuses a shredded tenant before anything is trained
        started = time.monotonic()
        try:
            result = _launched(parts, job, key, data, parent, launcher)
        except BaseException as failure:
            gone = _forget_erased(parts, data, job)
            if gone and isinstance(failure, Exception):
                raise Refused(f"{gone} (the training ended with: {failure})") from failure
            raise
        if gone := _forget_erased(parts, data, job):
            raise Refused(gone)
        manifest = CheckpointManifest(
            product=product.name,
            stage=stage,
            method=recipe.method,
            base=base.digest,
            template=parts.store.put_bytes(template.read_bytes()),
            recipe=parts.store.put_manifest(recipe),
            datasets=tuple(dict.fromkeys([*(parent.datasets if parent else ()), data.digest])),
            parent=None if parent is None else parent.digest,
            teacher=None if teacher is None else teacher.digest,
            step=result.step,
            weights=parts.store.put_tree(RunFiles(run_dir).weights, product.tenant),
            metrics=result.metrics,
            curve=parts.store.put_json([point.payload() for point in result.curve]),
            environment=parts.store.put_json(dict(result.environment)),
            action_key=key,
        )
        body: dict[str, JsonValue] = {
            "checkpoint": manifest.digest,
            "stage": stage,
            "weights": manifest.weights,
            "seconds": round(time.monotonic() - started),
        }
        parts.log.append("checkpoint.recorded", product.name, body, actor="training")
        return manifest

    with parts.locks.hold(run_record.lock_of(key)):
        made = remembered(
            parts.store, key, CheckpointManifest, work, whole=lambda manifest: parts.store.readable(manifest.weights)
        )
        _clean(RunFiles(run_dir))
        forget_store(job.store)
    return made


def _launched(
    parts: Parts,
    job: TrainJob,
    key: Digest,
    data: DatasetManifest,
    parent: CheckpointManifest | None,
    launcher: TrainerLauncher,
) -> TrainResult:
    """Run the trainer to its end."""
    files = RunFiles(job.run_dir)
    with (
        rows_at_hand(parts, job, data),
        parent_at_hand(parts, job, parent),
        run_record.recorded(parts, job, key, data.digest),
    ):
        launcher.launch(files.job, job.run_dir)
    if not files.result.is_file():
        raise Unavailable(f"the trainer left no result in {job.run_dir}: see its log; run the step again to resume")
    return TrainResult.model_validate_json(files.result.read_bytes())


def probe_suites(product: Product, recipe: Recipe) -> tuple[Path, ...]:
    """Files of the suites that the trainer asks in mid-run. Raises `BadInput` when the recipe has probes and the
    product names nothing to ask."""
    if recipe.probes is None:
        return ()
    asked = [suite.name for suite in load_suites(product) if is_probe(suite)]
    if not asked:
        raise BadInput(f"recipe {product.recipe}: probes need a suite of layer general or safety in {product.name}")
    return tuple(product.file("suite", name) for name in asked)


def _forget_erased(parts: Parts, data: DatasetManifest, job: TrainJob) -> str:
    """Keep nothing of a run whose rows were erased while they were learned from; why it is refused, or nothing."""
    erased = erased_rows(parts, data)
    if not erased:
        return ""
    shutil.rmtree(job.run_dir, ignore_errors=True)
    forget_store(job.store)
    return f"{len(erased)} rows of data set {data.digest} were erased meanwhile: run the line again"


def _clean(files: RunFiles) -> None:
    """After the weights are in the store, only the metrics stay."""
    for folder in (files.work, files.checkpoints, files.sweep, files.weights, files.parent):
        shutil.rmtree(folder, ignore_errors=True)
    for path in (files.result, files.failed, files.ended, files.environment, files.log, files.job):
        path.unlink(missing_ok=True)


def _improved(checkpoint: CheckpointManifest) -> bool:
    return checkpoint.metrics["validation_loss"] < checkpoint.metrics["validation_loss_start"]


def _licences(data: DatasetManifest) -> list[str]:
    counted = data.facts.get("licences", {})
    return list(counted) if isinstance(counted, dict) else []
