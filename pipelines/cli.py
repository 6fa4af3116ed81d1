"""``assay``: the operations of the line for a terminal and for CI. Each command has an example in its ``--help``."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from data_contracts.chain import ALL, ChainBroken
from data_contracts.digests import sha256_bytes
from data_contracts.errors import AssayError, BadInput, Unavailable
from data_contracts.records import ToolSpec
from pipelines import (
    audit_cli,
    capacity_cli,
    costs_cli,
    data_cli,
    decision_cli,
    desk_cli,
    distil_cli,
    erasure_cli,
    eval_cli,
    feedback_cli,
    gate_cli,
    judge_cli,
    lifecycle_cli,
    overview_cli,
    recipe_cli,
    releases_cli,
    review_cli,
    runs_cli,
    scan_cli,
    shadow_cli,
    spotcheck_cli,
    tenant_cli,
    tuning_cli,
)
from pipelines.launch import materialize
from pipelines.terminal import JsonFlag, ProductName, console, person, show
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=__doc__)
key_app = typer.Typer(no_args_is_help=True, help="API keys of tenants.")
log_app = typer.Typer(no_args_is_help=True, help="The audit log.")
app.add_typer(review_cli.app)
app.add_typer(releases_cli.app)
app.add_typer(lifecycle_cli.app)
app.add_typer(shadow_cli.app)
app.add_typer(erasure_cli.app)
app.add_typer(decision_cli.app)
app.add_typer(overview_cli.app)
app.add_typer(audit_cli.app)
app.add_typer(runs_cli.app)
app.add_typer(capacity_cli.app)
app.add_typer(costs_cli.app)
app.add_typer(eval_cli.app)
app.add_typer(desk_cli.app)
app.add_typer(scan_cli.app)
app.add_typer(gate_cli.app)
app.add_typer(tuning_cli.app)
app.add_typer(data_cli.app, name="data")
app.add_typer(distil_cli.app, name="distil")
app.add_typer(feedback_cli.app, name="feedback")
app.add_typer(judge_cli.app, name="judge")
app.add_typer(recipe_cli.app, name="recipe")
app.add_typer(spotcheck_cli.app, name="spotcheck")
app.add_typer(tenant_cli.app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(log_app, name="log")

LINE = (
    "key:data* or key:model* or key:eval/product or key:eval/safety or key:eval/general or key:eval/serving"
    " or key:release/verdict or key:release/candidate"
)


def main() -> None:
    """Entry point: errors a person can act on are one line on stderr, exit code 1 (2 for wrong usage)."""
    try:
        app()
    except (AssayError, ChainBroken) as error:
        print(f"assay: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)


@app.command()
def init() -> None:
    """Make this installation's home and log key; print the line for your trust root.

    Example: assay init >> /somewhere/safe/allowed_signers
    """
    from pipelines.stages.release.setup import initialise

    print(initialise(Line()))


@app.command()
def run(
    product: ProductName,
    select: Annotated[str, typer.Option(help="Dagster asset selection.")] = LINE,
    as_json: JsonFlag = False,
) -> None:
    """Materialize the line for a product, up to the candidate that waits for approval. Done work is skipped.

    Example: assay run billing-assistant
    """
    from pipelines.stages.release.registered import latest_registered

    line = Line()
    line.product(product)
    materialize(select, product, line.home, (lambda text: None) if as_json else (lambda text: console.print(text)))
    release = latest_registered(line, product)
    if as_json:
        show({"product": product, "release": release})
    elif release:
        console.print(f"candidate release {release}\nnext: assay approve {release[:19]} --key ~/.ssh/id_ed25519")


@app.command()
def up() -> None:
    """Start the standing system: Dagster, MLflow, vLLM, the gateway and the review page, under one
    supervisor.

    Example: assay up
    """
    line = Line()
    line.supervisor.up()
    _print_status(line)


@app.command()
def down() -> None:
    """Stop the standing system.

    Example: assay down
    """
    Line().supervisor.down()
    console.print("stopped")


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """What runs, whether it is healthy, and where; which release of each product is live.

    Example: assay status --json
    """
    line = Line()
    if as_json:
        show({"programs": [s.payload() for s in line.supervisor.status()], "products": _live(line)})
    else:
        _print_status(line)


@app.command()
def ask(
    product: ProductName,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    api_key: Annotated[str, typer.Option(envvar="ASSAY_API_KEY", help="An API key of the product's tenant.")],
    tools: Annotated[
        Path | None, typer.Option(help="Tools on offer: JSON lines of {name, description, parameters}.")
    ] = None,
) -> None:
    """Ask the live release through the gateway; print the answer and its provenance (JSON).

    Example: assay ask billing-assistant "Please open INV-2231 for me." --tools evals/goldens/tools.jsonl
    """
    import httpx

    from pipelines.stages.serve.answer import as_openai_tools

    line = Line()
    body: dict[str, Any] = {"model": product, "messages": [{"role": "user", "content": question}]}
    if tools is not None:
        body["tools"] = as_openai_tools(
            tuple(ToolSpec.model_validate_json(row) for row in tools.read_text().splitlines())
        )
    url = f"{line.gateway_url}/v1/chat/completions"
    try:
        answer = httpx.post(
            url, json=body, headers={"authorization": f"Bearer {api_key}"}, timeout=180, trust_env=False
        )
    except httpx.HTTPError as error:
        raise Unavailable(f"the gateway does not answer at {url}: start it with `assay up` ({error})") from error
    if answer.status_code != 200:
        raise AssayError(f"the gateway answered with status {answer.status_code}: {answer.text[:500]}")
    show(answer.json())


@app.command()
def limits() -> None:
    """Check HOME/limits.yaml, and show the limits of the gateway and of tenants (JSON).

    Example: assay limits
    """
    from pipelines.stages.serve.limits import limits_file, read_limits

    show(read_limits(limits_file(Line().home)).model_dump(exclude_none=True))


@key_app.command("create")
def key_create(tenant: Annotated[str, typer.Argument(help="The tenant the key is for.")]) -> None:
    """Make an API key for a tenant. It is shown once; only its hash is kept.

    Example: assay key create demo
    """
    from pipelines.stages.serve.tenants import create_key

    line = Line()
    key = create_key(line.home, tenant)
    line.log.append("key.created", ALL, {"tenant": tenant, "key": sha256_bytes(key.encode())}, actor=person())
    print(key)


@log_app.command("head")
def log_head() -> None:
    """The audit log's head digest: note it elsewhere, and give it to ``assay verify --head`` later.

    Example: assay log head
    """
    print(Line().log.signed_head().head)


@log_app.command("rotate-key")
def log_rotate_key() -> None:
    """Replace the log key; the change is an event in the log, signed with the outgoing key.

    Example: assay log rotate-key
    """
    record = Line().log.rotate(actor=person())
    console.print(f"log key rotated (audit record {record.sequence})")


def _live(line: Line) -> dict[str, str]:
    from data_contracts.chain import live_releases

    return {f"{product}/{place}": release for (product, place), release in live_releases(line.log.records()).items()}


def _print_status(line: Line) -> None:
    table = Table("program", "state", "health", "where", box=None, pad_edge=False)
    for program in line.supervisor.status():
        health = "healthy" if program.healthy else program.detail or "not healthy"
        table.add_row(program.name, program.state, health, program.url)
    console.print(table)
    for where, release in _live(line).items():
        console.print(f"live  {where}  {release}")


if __name__ == "__main__":
    main()
