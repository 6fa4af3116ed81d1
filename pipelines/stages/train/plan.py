"""``assay plan``: what training a product will need and take, before anything runs."""

from pathlib import Path
from statistics import median

from data_contracts.digests import Digest
from data_contracts.errors import AssayError
from data_contracts.frozen import Frozen
from data_contracts.runs import RunRecord
from pipelines.recipes.objectives import Schedule
from pipelines.recipes.product import Product
from pipelines.recipes.recipe import Recipe
from pipelines.stages.protocols import Parts
from pipelines.stages.train import estimate
from pipelines.stages.train.estimate import Memory, Shapes
from pipelines.stages.train.hardware import Machine, this_machine
from pipelines.stages.train.steps import base as converted
from pipelines.stages.train.steps import known_base


class StagePlan(Frozen):
    """``trainable`` of ``parameters`` are changed. ``tokens`` is the most that can be seen, with every row as long as
    the recipe allows, and ``memory`` what such a batch needs. ``seconds`` as ``past_runs`` runs of like shape took for
    their rows; ``None`` when there is no such run."""

    stage: str
    parameters: int
    trainable: int
    steps: int
    rows: int
    tokens: int
    memory: Memory
    past_runs: int
    seconds: float | None
    cost: float | None


class Plan(Frozen):
    """``refused`` says why it cannot be run here, and the remedy; it is empty when it can."""

    product: str
    recipe: Digest
    method: str
    precision: str
    base: Digest | None
    machine: Machine | None
    stages: tuple[StagePlan, ...]
    refused: str = ""


def plan(parts: Parts, product: Product, recipe: Recipe, source: str) -> Plan:
    """For a resolved recipe and the base that ``source`` names, which is converted once where it has to be."""
    folder, name = base_folder(parts, product, source)
    shapes, machine = estimate.shapes_of(folder), this_machine()
    stages = tuple(
        _stage(parts, stage, schedule, recipe, shapes, name, machine) for stage, schedule in schedules(recipe).items()
    )
    made = Plan(
        product=product.name,
        recipe=recipe.digest,
        method=recipe.method,
        precision=recipe.precision,
        base=name,
        machine=machine,
        stages=stages,
    )
    try:
        for stage in stages:
            batch = f"{stage.stage} with rows of max_length {recipe.max_length}"
            estimate.refuse_what_cannot_fit(stage.memory, machine, batch)
    except AssayError as error:
        return made.model_copy(update={"refused": str(error)})
    return made


def schedules(recipe: Recipe) -> dict[str, Schedule]:
    """The stages that a recipe runs, in their order."""
    after: dict[str, Schedule] = {} if recipe.tuning is None else {recipe.tuning: recipe.schedule(recipe.tuning)}
    return {"sft": recipe.sft.schedule, **after}


def base_folder(parts: Parts, product: Product, source: str) -> tuple[Path, Digest | None]:
    """The base's folder, and its digest where it is in the store; a new folder of safetensors is read where it lies."""
    origin = parts.bases.locate(source)
    manifest = known_base(parts, origin)
    if manifest is None and any(origin.path.glob("*.safetensors")):
        return origin.path, None
    manifest = manifest or converted(parts, product, source)[0]
    return parts.store.tree(manifest.tree), manifest.digest


def _stage(
    parts: Parts,
    stage: str,
    schedule: Schedule,
    recipe: Recipe,
    shapes: Shapes,
    base: Digest | None,
    machine: Machine | None,
) -> StagePlan:
    rows = schedule.steps * schedule.batch_size * schedule.accumulate
    sides = estimate.SIDES.get(stage, 1)
    kind = machine.kind if machine else "cpu"
    past = [
        run
        for run in parts.runs.find(outcomes=["done"])
        if run.rows and (run.stage, run.base) == (stage, base) and _shape(run, recipe, kind)
    ]
    seconds = rows * median(run.seconds / run.rows for run in past) if past else None
    rate = parts.hour_cost
    return StagePlan(
        stage=stage,
        parameters=estimate.size(shapes.tensors),
        trainable=estimate.size(estimate.trained(shapes, recipe)),
        steps=schedule.steps,
        rows=rows,
        tokens=rows * sides * recipe.max_length,
        memory=estimate.memory(shapes, recipe, sides * schedule.batch_size * recipe.max_length, kind),
        past_runs=len(past),
        seconds=seconds,
        cost=None if seconds is None or rate is None else seconds / 3600 * rate,
    )


def _shape(run: RunRecord, recipe: Recipe, kind: str) -> bool:
    """Whether a run computed the same for a row: method, precision and length, on a machine of this kind."""
    same = ("method", "precision", "max_length", "activation_checkpointing")
    return {name: run.hyperparameters.get(name) for name in same} == {
        name: getattr(recipe, name) for name in same
    } and (run.device == "cpu") == (kind == "cpu")
