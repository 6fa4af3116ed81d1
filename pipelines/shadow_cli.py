"""``assay shadow``: ask another release a share of the live requests too, and compare."""

from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.terminal import JsonFlag, ProductName, console, person, show
from pipelines.wiring import Line

app = typer.Typer()


@app.command()
def shadow(
    product: ProductName,
    release: Annotated[str, typer.Option(help="Begin with this release (sha256:..., or its first characters).")] = "",
    share: Annotated[float | None, typer.Option(help="Of the requests of clients: above 0, up to 1.")] = None,
    off: Annotated[bool, typer.Option("--off", help="Stop at once.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Have another approved release answer a share of the live requests too, unheard; without options: how it does
    beside the one that answers. Nobody gets its answers, and no text of them is kept.

    Example: assay shadow billing-assistant --release sha256:4f1c --share 0.1
    """
    from pipelines.stages.release.registered import find_release
    from pipelines.stages.release.shadow import begin_shadow, end_shadow
    from pipelines.stages.signals.shadow import shadowing

    line = Line()
    known = line.product(product)
    if (share is not None) != bool(release) or (release and off):
        raise BadInput("give --release with --share to begin, --off to stop, or none of them to compare")
    if release and share is not None:
        begun = begin_shadow(line, known, find_release(line, release), share, actor=person())
        console.print(f"{product}: {begun.body['release']} is asked {share:.0%} (audit record {begun.sequence})")
        return
    if off:
        ended = end_shadow(line, known, actor=person())
        console.print(f"{product}: {ended.body['release']} is asked no more (audit record {ended.sequence})")
        return
    found = shadowing(line, known)
    if as_json:
        show(found.payload())
        return
    console.print(f"{product}: {f'{found.shadow} is asked {found.share:.0%}' if found.shadow else 'no shadow now'}")
    for each in found.beside:
        console.print(f"{each.shadow} beside {each.live or 'the base model'}:")
        console.print(f"  {each.mirrored} requests mirrored, {each.failed} without an answer")
        console.print(f"  {each.equal} of {each.compared} answers are the same to the letter")
        for name, pair, unit in (("JSON objects", each.json_valid, ""), ("median", each.median_ms, " ms")):
            if pair:
                console.print(f"  {name}: {pair[0]:g}{unit} live, {pair[1]:g}{unit} shadow")
