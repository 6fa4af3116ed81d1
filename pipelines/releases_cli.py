"""``assay dossier | approve | reject | promote | rollback | verify | rebuild | export | trace``: how a release becomes
live, what it came from, and how it leaves the line."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from data_contracts.chain import APPROVAL_NAMESPACE
from data_contracts.digests import is_digest
from data_contracts.errors import AssayError, BadInput
from pipelines.terminal import JsonFlag, ProductName, aside, console, person, show, tell
from pipelines.wiring import Line

app = typer.Typer()

ReleaseId = Annotated[str, typer.Argument(help="A release id (sha256:...), or its first characters.")]


@app.command()
def dossier(
    release: ReleaseId,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: where `assay pending` says.")] = None,
    texts: Annotated[
        bool,
        typer.Option("--texts", help="Quote what was asked and answered. Needs --out: keep that copy to yourself."),
    ] = False,
) -> None:
    """Draw a release's dossier again: report.html and report.md, with names and scores, and no text of an answer.

    Example: assay dossier sha256:4f1c --texts --out dossier
    """
    from pipelines.stages.release.dossier import of_release
    from pipelines.stages.release.files import report_folder, write_report

    if texts and out is None:
        raise BadInput("--texts needs --out: a copy that quotes answers is not put among the stored reports")
    line = Line()
    digest = _full_id(line, release)
    manifest = _release(line, digest)
    report = of_release(line, line.product(manifest.product), manifest, texts)
    written = write_report(out or report_folder(line.home, digest), report, 0o600 if texts else 0o644)
    console.print(f"written: {written}")


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
    sign_decision(release, "approve", key, principal, hours, "")


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
    sign_decision(release, "reject", key, principal, None, reason)


@app.command()
def promote(release: ReleaseId) -> None:
    """Promote an approved release now: verify all again, challenger, canary, record, alias. The sensor does the same.

    Where the product's canary has a rollout, this takes until the traffic has told. Ended before, traffic goes back to
    the champion within a minute, and the same command goes on with what was seen.

    Example: assay promote sha256:4f1c
    """
    from pipelines.stages.release.canary import GatewayAsk
    from pipelines.stages.release.promotion import promote as promote_release
    from pipelines.stages.release.registered import find_release
    from pipelines.stages.serve.tenants import operator_key

    line = Line()
    digest = find_release(line, release)
    product = line.product(_release(line, digest).product)
    try:
        ask = GatewayAsk(line.gateway_url, operator_key(line.home))
        record = promote_release(line, product, digest, ask, tell=console.print)
        console.print(f"{product.name}: {digest} is live (audit record {record.sequence})")
    finally:
        tell(line)


@app.command()
def rollback(product: ProductName, reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")]) -> None:
    """Go back to the release that was live before, effective on the next request.

    Writes a note for support: a status text to send, and who saw the release. Approvals then wait for the root cause.

    Example: assay rollback billing-assistant --reason "wrong refunds since noon"
    """
    from pipelines.stages.release.files import report_folder
    from pipelines.stages.release.rollback import rollback as roll_back
    from pipelines.stages.release.support_note import as_markdown, support_note

    line = Line()
    record = roll_back(line, line.product(product), reason, actor=person())
    console.print(f"{product}: live is now {record.body['release'] or 'the base model'}")
    note = report_folder(line.home, str(record.body["from"])) / f"rollback-{record.sequence}.md"
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(as_markdown(support_note(line, line.product(product), record)))
    console.print(f"for support, whom it concerns: {note}")
    console.print(f"nothing is approved until the cause is filed: assay root-cause {product} --help")
    tell(line)


@app.command()
def verify(
    release: ReleaseId,
    trust_root: Annotated[Path | None, typer.Option(help="Allowed-signers file; default: ASSAY_TRUST_ROOT.")] = None,
    head: Annotated[str | None, typer.Option(help="A log head noted earlier: shows truncation.")] = None,
    files: Annotated[
        Path | None, typer.Option(help="A folder that you got as this release, or an export: check it too.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Walk a release's chain offline, from rows to route: every digest and signature. Exit 1 names the broken link.

    Example: assay verify sha256:4f1c --trust-root /somewhere/safe/allowed_signers --head sha256:9b2e...
    """
    from pipelines.stages.release.verify import verify as walk
    from resources.ssh_signatures import SshSignatures

    line = Line()
    signatures = SshSignatures(trust_root) if trust_root else line.signatures
    links = walk(line, _full_id(line, release), signatures, head, files)
    broken = [link for link in links if link.status == "broken"]
    if as_json:
        show({"ok": not broken, "links": [link.payload() for link in links]})
    for link in [] if as_json else links:
        mark = {"broken": "BROKEN"}.get(link.status, link.status)
        console.print(f"{mark:8}  {link.name}: {link.detail}")
    if broken:
        raise AssayError(f"broken link: {broken[0].name}: {broken[0].detail}")


@app.command()
def rebuild(
    release: ReleaseId,
    out: Annotated[Path | None, typer.Option(help="New folder for the weights; default: they are not kept.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a release again from its manifests and compare the weights: equal bytes on the same stack, else how far
    apart, and where they parted. Takes as long as the training did; ended, the same command goes on. Exit 1: different.

    Example: assay rebuild sha256:4f1c --out again
    """
    from data_contracts.manifests import ModelManifest
    from pipelines.stages.train.rebuild import TOLERANCE
    from pipelines.stages.train.rebuild import rebuild as train_again

    line = Line()
    manifest = _release(line, _full_id(line, release))
    model = line.store.get_manifest(manifest.model, ModelManifest)
    with aside(as_json):
        found = train_again(line, line.product(manifest.product), model, line.launcher, out)
    if as_json:
        show([each.payload() for each in found])
    for each in [] if as_json else found:
        console.print(f"{each.stage}: {each.outcome}, weights {each.made}")
        if each.outcome != "equal":
            console.print(
                f"  kept were {each.kept}; {each.tensor} is {each.distance:.4g} of its norm away ({TOLERANCE:g})"
            )
            console.print(f"  the losses part at step {each.step}" if each.step else "  the losses are the same")
        for name, (then, now) in each.environment.items():
            console.print(f"  {name} was {then or 'not recorded'}, and is {now or 'not there'}")
    if any(each.outcome == "different" for each in found):
        raise AssayError("the weights made again are different ones")


@app.command()
def export(
    release: ReleaseId,
    format: Annotated[str, typer.Option(help="merged (safetensors), gguf, or gguf-q8_0.")],
    out: Annotated[Path, typer.Option(help="New folder; it appears only when it is whole.")],
    items: Annotated[int, typer.Option(min=1, help="So many items of each suite are asked of what was written.")] = 24,
    as_json: JsonFlag = False,
) -> None:
    """Write an approved release as files for other servers, signed and named in the audit log, with its card and terms.

    What was written is asked some of the suites' items again. Exit 1, and nothing is written, where it scores otherwise
    than the release did.

    Example: assay export sha256:4f1c --format gguf --out billing-gguf
    """
    from pipelines.stages.release.export import export as write

    line = Line()
    digest = _full_id(line, release)
    product = line.product(_release(line, digest).product)
    with aside(as_json):
        found = write(line, product, digest, line.exporter(format), out, items, _say_answered)
    if as_json:
        show(found.payload() | {"digest": found.digest})
        return
    for each in found.agreement:
        same = each.n - len(each.differ)
        means = f"{each.metric} {each.recorded:.3f} as judged, {each.exported:.3f} now"
        console.print(f"{each.suite}: {same} of {each.n} items score as before; {means}")
    for suite in found.left_out:
        console.print(f"{suite}: not asked again: its scores are not of answers in text")
    console.print(f"written: {out}  export {found.digest}\ntree {found.tree}, in the audit log and signed")


@app.command()
def trace(identifier: Annotated[str, typer.Argument(help="A response's trace id, or a row's name.")]) -> None:
    """From a response or a row to everything it came from and went into (JSON).

    Example: assay trace 01JD3Z8Q4M
    """
    from pipelines.stages.release.trace import trace as follow

    show(follow(Line(), identifier).payload())


def sign_decision(release: str, decision: Any, key: Path, principal: str, hours: float | None, reason: str) -> None:
    """Sign ``approve`` or ``reject``, and lay it into the inbox."""
    from pipelines.stages.release import approval
    from pipelines.stages.release.signed import only_principal
    from resources.ssh_signatures import sign

    line = Line()
    digest = _full_id(line, release)
    product = line.product(_release(line, digest).product)
    expires = datetime.now(UTC) + timedelta(hours=hours or product.approval.expires_hours)
    statement = approval.statement_for(line, product, digest, decision, expires)
    message = approval.message(statement)
    signature = sign(key, APPROVAL_NAMESPACE, message)
    principal = principal or only_principal(line.signatures, APPROVAL_NAMESPACE, message, signature)
    if decision == "approve":
        product.approval.check_may_approve(principal)
    path = approval.submit(line, digest, statement, signature, principal, reason)
    console.print(f"{decision} signed for {digest}\nwaiting for the approvals sensor: {path}")


def _say_answered(suite: str, done: int, total: int) -> None:
    if done == total or done % 8 == 0:
        print(f"{suite}: {done} of {total} answered", file=sys.stderr, flush=True)


def find(line: Line, text: str) -> tuple[str, str]:
    """(release, its product)."""
    digest = _full_id(line, text)
    return digest, str(_release(line, digest).product)


def _full_id(line: Line, text: str) -> str:
    from pipelines.stages.release.registered import find_release

    return text if is_digest(text) else find_release(line, text)


def _release(line: Line, digest: str) -> Any:
    from data_contracts.manifests import ReleaseManifest

    return line.store.get_manifest(digest, ReleaseManifest)
