"""Base -> SFT -> preference tuning -> the candidate. The trainer is a process of its own, started through Pipes."""

from base64 import b64encode

import dagster as dg

from assets.groups import asset_in
from assets.outcome import Shown, materialized
from assets.resuming import resumed_after_a_stop
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest
from evals import plots
from pipelines.recipes.recipe import load_recipe
from pipelines.stages.train import run_record, steps
from pipelines.wiring import Line
from resources.dagster import PipesLauncher

model_asset = asset_in("model", "pipelines/stages/train", "pipelines/recipes", "data_contracts")
FROM_DATA = dg.AssetIn(key_prefix="data")
FROM_MODEL = dg.AssetIn(key_prefix="model")


@model_asset(kinds={"safetensors"})
def base(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line]) -> dg.MaterializeResult[BaseManifest]:
    """The base model as one verified tree of weights and tokenizer; the chat template is the product's own."""
    product = line.product(context.partition_key)
    made = steps.base(line, product, product.base or line.settings.base_model)
    return materialized(made, {"parameters": made[0].parameters, "licence": made[0].licence})


@model_asset(ins={"base": FROM_MODEL, "splits": FROM_DATA}, kinds={"trl", "peft"}, pool="gpu")
def sft(
    context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], base: BaseManifest, splits: DatasetManifest
) -> dg.MaterializeResult[CheckpointManifest]:
    """Supervised fine-tuning on the training split, by the product's recipe."""
    product = line.product(context.partition_key)
    with resumed_after_a_stop():
        return _trained(line, steps.sft(line, product, base, splits, PipesLauncher(context, line.launcher)))


@model_asset(
    ins={"base": FROM_MODEL, "sft": FROM_MODEL, "splits": FROM_DATA, "preferences": FROM_DATA},
    kinds={"trl", "peft"},
    pool="gpu",
)
def preference_tuned(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    base: BaseManifest,
    sft: CheckpointManifest,
    splits: DatasetManifest,
    preferences: DatasetManifest,
) -> dg.MaterializeResult[CheckpointManifest]:
    """What follows SFT in the recipe (DPO and its relatives, KTO, a reward model, GRPO, distillation), from the SFT
    weights; the SFT checkpoint itself when nothing does."""
    product = line.product(context.partition_key)
    if load_recipe(product.file("recipe", product.recipe)).tuning is None:
        return materialized((sft, True), {"note": "the recipe ends with SFT"})
    launcher = PipesLauncher(context, line.launcher)
    with resumed_after_a_stop():
        return _trained(line, steps.tuned(line, product, base, sft, splits, preferences, launcher))


@model_asset(
    ins={"base": FROM_MODEL, "sft": FROM_MODEL, "preference_tuned": FROM_MODEL, "splits": FROM_DATA}, kinds={"peft"}
)
def selected(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    base: BaseManifest,
    sft: CheckpointManifest,
    preference_tuned: CheckpointManifest,
    splits: DatasetManifest,
) -> dg.MaterializeResult[ModelManifest]:
    """The candidate: the checkpoint to be judged, with all that it was made from."""
    tuned = None if preference_tuned.stage == "sft" else preference_tuned
    made = steps.selected(line, line.product(context.partition_key), base, sft, tuned, splits)
    return materialized(made, {"candidate": made[0].digest, "weights": made[0].weights})


def _trained(line: Line, made: tuple[CheckpointManifest, bool]) -> dg.MaterializeResult[CheckpointManifest]:
    manifest = made[0]
    points = [*line.store.get_json(manifest.curve), *run_record.speeds(line, manifest.action_key)]
    picture = b64encode(plots.curves({manifest.stage: points}).png()).decode()
    metrics = {name: dg.MetadataValue.float(value) for name, value in manifest.metrics.items() if "@" not in name}
    shown = dg.MetadataValue.md(f"![the run by step](data:image/png;base64,{picture})")
    facts: dict[str, Shown] = {"step": manifest.step, "weights": manifest.weights, "curves": shown, **metrics}
    return materialized(made, facts | _run(line, manifest))


def _run(line: Line, manifest: CheckpointManifest) -> dict[str, Shown]:
    """What the run that made it took, as its record tells; nothing where there is none."""
    for run in line.runs.find(outcomes=["done"], action_key=manifest.action_key)[:1]:
        took = {
            "seconds": run.seconds,
            "tokens_per_second": run.tokens_per_second,
            "peak_memory_gb": run.peak_memory_gb,
            "device_memory_gb": run.device_memory_gb,
            "cost": run.cost,
        }
        return {"run": run.run, **{name: value for name, value in took.items() if value is not None}}
    return {}
