"""``assay runs | plan``: what became of every training run, and what the next one will take."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput, Missing
from data_contracts.runs import Outcome, RunRecord
from pipelines.terminal import JsonFlag, ProductName, console, show
from pipelines.wiring import Line

app = typer.Typer()
runs_app = typer.Typer()
app.add_typer(runs_app, name="runs")

CANNOT_FIT = 3
"""Exit code of a plan for a run that the machine has no memory for."""


@runs_app.callback(invoke_without_command=True)
def runs(
    context: typer.Context,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed, were stopped or killed.")] = False,
    product: Annotated[str, typer.Option(help="Only this product's.")] = "",
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="Started at this time (UTC) or later."),
    ] = None,
    contains: Annotated[
        str, typer.Option(help="Only those whose record says this: in the reason, a value (`rank 16`), the log's end.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Every start of the trainer, newest first: how it ended, where, and with what; ``show ID`` tells all of one.

    Example: assay runs --failed --since 2026-01-31 --contains GuardTripped
    """
    if context.invoked_subcommand:
        return
    from pipelines.stages.train.run_record import settle

    line = Line()
    settle(line)
    outcomes: tuple[Outcome, ...] = ("failed", "stopped", "killed") if failed else ()
    start = since and since.replace(tzinfo=UTC)
    found = [run for run in line.runs.find(product, outcomes, start) if run.mentions(contains)]
    if as_json:
        show([run.payload() for run in found])
        return
    for run in found:
        speed = "" if run.tokens_per_second is None else f"{run.tokens_per_second:.0f} tokens/s"
        what = f"{run.run}  {run.started:%Y-%m-%d %H:%M}  {run.outcome:<7}  {run.product}, {run.stage}"
        console.print(f"{what}  step {run.step}/{run.steps}  {run.seconds:.0f} s  {speed}  {_why(run)}".rstrip())
    if not found:
        console.print("no such run")


@runs_app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(help="A run, or the beginning of its name.")], as_json: JsonFlag = False
) -> None:
    """All of one run: why and where it ended, values, last metrics, environment, and the end of its log.

    Example: assay runs show 4f1c09d2ab31
    """
    from pipelines.stages.train.run_record import settle

    line = Line()
    settle(line)
    found = line.runs.get(run)
    if not found:
        raise Missing(f"no run {run}: `assay runs` lists them")
    if len(found) > 1:
        raise BadInput(f"{run} begins {len(found)} runs: give more characters ({', '.join(r.run for r in found)})")
    if as_json:
        show(found[0].payload())
        return
    for name, value in found[0].payload().items():
        if name != "log_tail" and value not in (None, "", {}):
            console.print(f"{name:<18}  {value}")
    console.print(f"\n{found[0].log_tail}")


@app.command()
def plan(
    product: ProductName,
    recipe: Annotated[Path | None, typer.Option(help="A recipe file in place of the product's.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Before a run: trained parameters, memory against what is there, steps, and time and cost by past runs.

    Exit code 3 with the remedy when it cannot fit.

    Example: assay plan billing-assistant --recipe pipelines/recipes/billing-assistant-gpu.yaml
    """
    from pipelines.recipes.recipe import load_recipe
    from pipelines.stages.train.hardware import computes_bf16
    from pipelines.stages.train.plan import plan as planned

    line = Line()
    wanted = line.product(product)
    file = recipe or wanted.file("recipe", wanted.recipe)
    found = planned(line, wanted, load_recipe(file).resolved(computes_bf16()), line.settings.base_model)
    if as_json:
        show(found.payload())
    else:
        machine = found.machine
        has = f"{machine.total / 1e9:.1f} GB, {machine.free / 1e9:.1f} free" if machine else "unknown"
        console.print(f"{product}: {found.method}, {found.precision}; memory of the {machine and machine.kind}: {has}")
        for stage in found.stages:
            share = 100 * stage.trainable / stage.parameters
            console.print(
                f"{stage.stage}: {stage.trainable:,} of {stage.parameters:,} parameters trained ({share:.2f} %)"
            )
            console.print(f"  {stage.steps} steps, {stage.rows} rows, at most {stage.tokens:,} tokens")
            needed = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in stage.memory.payload().items())
            console.print(f"  about {stage.memory.total / 1e9:.2f} GB: {needed}")
            console.print(f"  {_time(stage.seconds, stage.cost, stage.past_runs)}")
    if found.refused:
        print(f"assay: {found.refused}", file=sys.stderr)
        raise typer.Exit(CANNOT_FIT)


def _why(run: RunRecord) -> str:
    said = ": ".join(filter(None, (run.guard or run.error, run.reason)))
    return said if len(said) <= 100 else f"{said[:99]}…"


def _time(seconds: float | None, cost: float | None, runs: int) -> str:
    if seconds is None:
        return "time: unknown, no run of like shape is recorded"
    price = "" if cost is None else f", cost about {cost:.2f}"
    return f"about {seconds:.0f} s{price}, by {runs} past {'run' if runs == 1 else 'runs'} of like shape"
