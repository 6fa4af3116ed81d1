"""``assay capacity``: what serving takes and gives, before vLLM is started."""

import sys

import typer

from pipelines.terminal import JsonFlag, ProductName, console, show
from pipelines.wiring import Line

app = typer.Typer()
CANNOT_FIT = 3
"""Exit code where the machine has no memory for it."""


@app.command("capacity")
def show_capacity(product: ProductName, as_json: JsonFlag = False) -> None:
    """What vLLM takes with the settings ASSAY_SERVE_*: memory by what holds it, adapters that stay loaded, tokens of
    all requests at once. Exit code 3 with the remedy when it cannot fit.

    Example: ASSAY_SERVE_SLOTS=16 ASSAY_SERVE_KV_GIB=2 assay capacity billing-assistant
    """
    from data_contracts.errors import Refused
    from pipelines.stages.serve.capacity import capacity, refuse_what_cannot_be_served
    from pipelines.stages.train.estimate import shapes_of
    from pipelines.stages.train.hardware import this_machine
    from pipelines.stages.train.plan import base_folder

    line = Line()
    folder, _ = base_folder(line, line.product(product), line.settings.base_model)
    sizing, machine = line.server.sizing, this_machine()
    found = capacity(shapes_of(folder), sizing)
    if as_json:
        show(sizing.payload() | found.payload() | {"total": found.total})
    else:
        has = "unknown" if machine is None else f"{machine.total / 1e9:.1f} GB, {machine.free / 1e9:.1f} free"
        console.print(f"about {found.total / 1e9:.2f} GB without the program itself (the machine: {has})")
        parts = {"weights": found.weights, "adapters": found.adapters, "key-value cache": found.kv_cache}
        for name, size in parts.items():
            console.print(f"  {name:<16}{size / 1e9:6.2f} GB")
        console.print(f"adapters of releases that stay loaded: {found.residents}, of rank {sizing.max_rank} at most")
        requests = f"{found.at_once:g} requests of {sizing.max_model_len:,}"
        console.print(f"tokens of all requests at once: {found.kv_tokens:,}, {requests}")
    try:
        refuse_what_cannot_be_served(found, sizing, machine)
    except Refused as error:
        print(f"assay: {error}", file=sys.stderr)
        raise typer.Exit(CANNOT_FIT) from None
