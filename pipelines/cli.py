"""``assay``: the operations of the line for a terminal and for CI. Each command has an example in its ``--help``."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from data_contracts.chain import APPROVAL_NAMESPACE, ChainBroken
from data_contracts.digests import is_digest
from data_contracts.errors import AssayError, BadInput, Unavailable
from data_contracts.records import ToolSpec
from pipelines.launch import materialize
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=__doc__)
key_app = typer.Typer(no_args_is_help=True, help="API keys of tenants.")
log_app = typer.Typer(no_args_is_help=True, help="The audit log.")
app.add_typer(key_app, name="key")
app.add_typer(log_app, name="log")
console = Console(highlight=False, soft_wrap=True)

LINE = "key:data* or key:model* or key:eval* or key:release/verdict or key:release/candidate"
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ProductName = Annotated[str, typer.Argument(help="A product: the name of a file in pipelines/products.")]
ReleaseId = Annotated[str, typer.Argument(help="A release id (sha256:...), or its first characters.")]


def main() -> None:
    """Entry point: errors a person can act on are one line on stderr, exit code 1 (2 for wrong usage)."""
    try:
        app()
    except (AssayError, ChainBroken) as error:
        print(f"assay: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)


def show(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


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
    """Start the standing system: Dagster, MLflow, vLLM and the gateway, under one supervisor.

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
def pending(as_json: JsonFlag = False) -> None:
    """Releases that wait for approval, with where their reports lie.

    Example: assay pending
    """
    from pipelines.stages.release.registered import awaiting_approval

    line = Line()
    waiting = awaiting_approval(line)
    if as_json:
        show(waiting)
    for release in [] if as_json else waiting:
        manifest = _release(line, release)
        console.print(f"{release}  {manifest.product}  report: {_report_path(line, release)}")
    if not waiting and not as_json:
        console.print("nothing waits for approval")


@app.command()
def approve(
    release: ReleaseId,
    key: Annotated[Path, typer.Option(help="Your SSH private key (or the public one, with ssh-agent).")],
    principal: Annotated[str, typer.Option("--as", help="Your name in the trust root.")] = "",
    hours: Annotated[float | None, typer.Option(help="Hours until the approval expires.")] = None,
) -> None:
    """Sign an approval with your SSH key. It covers weights, base, template, verdict, card diff, policy, serving.

    Example: assay approve sha256:4f1c --key ~/.ssh/id_ed25519
    """
    _sign(release, "approve", key, principal, hours, "")


@app.command()
def reject(
    release: ReleaseId,
    key: Annotated[Path, typer.Option(help="Your SSH private key (or the public one, with ssh-agent).")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    principal: Annotated[str, typer.Option("--as", help="Your name in the trust root.")] = "",
) -> None:
    """Sign a rejection, with its reason.

    Example: assay reject sha256:4f1c --key ~/.ssh/id_ed25519 --reason "refunds without an invoice"
    """
    _sign(release, "reject", key, principal, None, reason)


@app.command()
def promote(release: ReleaseId) -> None:
    """Promote an approved release now: verify all again, challenger, canary, record, alias. The sensor does the same.

    Example: assay promote sha256:4f1c
    """
    from pipelines.stages.release.canary import GatewayAsk
    from pipelines.stages.release.promotion import promote as promote_release
    from pipelines.stages.serve.tenants import operator_key

    line = Line()
    digest = _full_id(line, release)
    product = line.product(_release(line, digest).product)
    record = promote_release(line, product, digest, GatewayAsk(_gateway_url(line), operator_key(line.home)))
    console.print(f"{product.name}: {digest} is live (audit record {record.sequence})")


@app.command()
def rollback(product: ProductName, reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")]) -> None:
    """Go back to the release that was live before, effective on the next request.

    Example: assay rollback billing-assistant --reason "wrong refunds since noon"
    """
    from pipelines.stages.release.rollback import rollback as roll_back

    line = Line()
    record = roll_back(line, line.product(product), reason, actor="cli")
    console.print(f"{product}: live is now {record.body['release'] or 'the base model'}")


@app.command()
def verify(
    release: ReleaseId,
    trust_root: Annotated[Path | None, typer.Option(help="Allowed-signers file; default: ASSAY_TRUST_ROOT.")] = None,
    head: Annotated[str | None, typer.Option(help="A log head noted earlier: shows truncation.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Walk a release's chain offline, from rows to route: every digest and signature. Exit 1 names the broken link.

    Example: assay verify sha256:4f1c --trust-root /somewhere/safe/allowed_signers --head sha256:9b2e...
    """
    from pipelines.stages.release.verify import verify as walk
    from resources.ssh_signatures import SshSignatures

    line = Line()
    signatures = SshSignatures(trust_root) if trust_root else line.signatures
    links = walk(line, _full_id(line, release), signatures, head)
    broken = [link for link in links if link.status == "broken"]
    if as_json:
        show({"ok": not broken, "links": [link.payload() for link in links]})
    for link in [] if as_json else links:
        mark = {"ok": "ok    ", "erased": "erased", "broken": "BROKEN"}[link.status]
        console.print(f"{mark}  {link.name}: {link.detail}")
    if broken:
        raise AssayError(f"broken link: {broken[0].name}: {broken[0].detail}")


@app.command()
def trace(identifier: Annotated[str, typer.Argument(help="A response's trace id, or a row's name.")]) -> None:
    """From a response or a row to everything it came from and went into (JSON).

    Example: assay trace 01JD3Z8Q4M
    """
    from pipelines.stages.release.trace import trace as follow

    show(follow(Line(), identifier).payload())


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
    url = f"{_gateway_url(line)}/v1/chat/completions"
    try:
        answer = httpx.post(
            url, json=body, headers={"authorization": f"Bearer {api_key}"}, timeout=180, trust_env=False
        )
    except httpx.HTTPError as error:
        raise Unavailable(f"the gateway does not answer at {url}: start it with `assay up` ({error})") from error
    if answer.status_code != 200:
        raise AssayError(f"the gateway answered with status {answer.status_code}: {answer.text[:500]}")
    show(answer.json())


@key_app.command("create")
def key_create(tenant: Annotated[str, typer.Argument(help="The tenant the key is for.")]) -> None:
    """Make an API key for a tenant. It is shown once; only its hash is kept.

    Example: assay key create demo
    """
    from pipelines.stages.serve.tenants import create_key

    print(create_key(Line().home, tenant))


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
    record = Line().log.rotate(actor="cli")
    console.print(f"log key rotated (audit record {record.sequence})")


def _sign(release: str, decision: Any, key: Path, principal: str, hours: float | None, reason: str) -> None:
    from pipelines.stages.release import approval
    from resources.ssh_signatures import sign

    line = Line()
    digest = _full_id(line, release)
    product = line.product(_release(line, digest).product)
    expires = datetime.now(UTC) + timedelta(hours=hours or product.approval.expires_hours)
    statement = approval.statement_for(line, product, digest, decision, expires)
    signature = sign(key, APPROVAL_NAMESPACE, approval.message(statement))
    path = approval.submit(line, digest, statement, signature, principal, reason)
    console.print(f"{decision} signed for {digest}\nwaiting for the approvals sensor: {path}")


def _full_id(line: Line, text: str) -> str:
    from pipelines.stages.release.registered import find_release

    return text if is_digest(text) else find_release(line, text)


def _gateway_url(line: Line) -> str:
    return f"http://127.0.0.1:{line.settings.gateway_port}"


def _release(line: Line, digest: str) -> Any:
    from data_contracts.manifests import ReleaseManifest

    return line.store.get_manifest(digest, ReleaseManifest)


def _report_path(line: Line, release: str) -> Path:
    return line.home / "reports" / release.removeprefix("sha256:")[:16] / "report.html"


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
