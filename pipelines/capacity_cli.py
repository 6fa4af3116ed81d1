"""``assay capacity``: what serving takes and gives, before vLLM is started."""

import sys

import typer

from pipelines.terminal import JsonFlag, ProductName, console, show
from pipelines.wiring import Line

app = typer.Typer()
CANNOT_FIT = 3
"""Exit code where the machine has no memory for it, or vLLM no slots."""


@app.command("capacity")
def show_capacity(product: ProductName, as_json: JsonFlag = False) -> None:
    """What vLLM takes with the settings ASSAY_SERVE_*: memory by what holds it, adapters that can be loaded at once and
    which products pin theirs, tokens of all requests at once; and the second vLLM, where a product has merged weights.
    Exit code 3 with the remedy when it cannot fit.

    Example: ASSAY_SERVE_SLOTS=16 ASSAY_SERVE_KV_GIB=2 assay capacity billing-assistant
    """
    from data_contracts.errors import Refused
    from pipelines.stages.serve.capacity import (
        capacity,
        merged_capacity,
        pinnable,
        refuse_more_pinned_than_fit,
        refuse_what_cannot_be_served,
    )
    from pipelines.stages.train.estimate import shapes_of
    from pipelines.stages.train.hardware import this_machine
    from pipelines.stages.train.plan import base_folder

    line = Line()
    folder, _ = base_folder(line, line.product(product), line.settings.base_model)
    sizing, machine = line.server.sizing, this_machine()
    found = capacity(shapes_of(folder), sizing)
    placed = {each.name: each.serving.placement for each in line.products()}
    pinned = [name for name, placement in placed.items() if placement == "pinned"]
    merged = [name for name, placement in placed.items() if placement == "merged"]
    second = merged_capacity(shapes_of(folder), sizing)
    beside = second.total if merged else 0
    if as_json:
        told = {"total": found.total, "pinned": pinned, "merged": merged, "merged_total": beside}
        show(sizing.payload() | found.payload() | told)
    else:
        has = "unknown" if machine is None else f"{machine.total / 1e9:.1f} GB, {machine.free / 1e9:.1f} free"
        console.print(f"about {found.total / 1e9:.2f} GB (the machine: {has})")
        parts = {
            "program": found.program,
            "weights": found.weights,
            "adapters": found.adapters,
            "key-value cache": found.kv_cache,
        }
        for name, size in parts.items():
            console.print(f"  {name:<16}{size / 1e9:6.2f} GB")
        console.print(f"adapters loaded at once: {found.residents}, of rank {sizing.max_rank} at most")
        console.print(f"  pinned: {', '.join(pinned) or 'none'} ({pinnable(found.residents)} can be)")
        if merged:
            console.print(f"merged weights of {', '.join(merged)}: about {beside / 1e9:.2f} GB more, in a second vLLM")
        requests = f"{found.at_once:g} requests of {sizing.max_model_len:,}"
        console.print(f"tokens of all requests at once: {found.kv_tokens:,}, {requests}")
    try:
        refuse_what_cannot_be_served(found, sizing, machine)
        if merged:
            refuse_what_cannot_be_served(second, sizing, machine, found.total)
        refuse_more_pinned_than_fit(pinned, found.residents)
    except Refused as error:
        print(f"assay: {error}", file=sys.stderr)
        raise typer.Exit(CANNOT_FIT) from None
