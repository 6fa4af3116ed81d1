"""``assay pending | review``: what waits for a signature, and a dossier to read before giving one."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.releases_cli import ReleaseId, find, sign_decision
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

if TYPE_CHECKING:
    from pipelines.stages.release.review import Candidate, Review

app = typer.Typer()

_IMAGE = re.compile(r"!\[[^]]*\]\([^)]*\)\n?")
_STANDING = {"waits": "waits for the approvals sensor", "void": "does not count:"}
_DECISIONS = ("approve", "reject", "nothing")


@app.command()
def pending(as_json: JsonFlag = False) -> None:
    """Releases that wait for approval: what each of them lacks, its dossier, and how to sign. The review page shows the
    same; --json gives their ids.

    Example: assay pending
    """
    from pipelines.stages.release.registered import awaiting_approval

    line = Line()
    if as_json:
        show(awaiting_approval(line))
        return
    reviews = [each for each in _reviews(line) if each.candidates or each.locked or each.faults]
    for each in reviews:
        since = f" since {each.since:%Y-%m-%d %H:%M} UTC" if each.since else ""
        console.print(f"{each.product}/{each.environment}, live: {each.live or 'the base model'}{since}", markup=False)
        if each.locked:
            console.print(f"  nothing is approved now: {each.locked}\n  $ {each.unlock}", markup=False)
        for fault in each.faults:
            console.print(f"{fault.release}  cannot be checked: {fault.why}", markup=False)
        for one in each.candidates:
            _show(line, one)
    if not reviews:
        console.print("nothing waits for approval")


@app.command()
def review(
    release: ReleaseId,
    key: Annotated[Path | None, typer.Option(help="Your SSH private key: you are asked what to sign with it.")] = None,
    principal: Annotated[str, typer.Option("--as", help="Your name in the trust root.")] = "",
    hours: Annotated[float | None, typer.Option(help="Hours until an approval expires.")] = None,
) -> None:
    """Read a candidate's dossier as it was registered, and what it still lacks; with --key, decide and sign.

    Example: assay review sha256:4f1c --key ~/.ssh/id_ed25519
    """
    from pipelines.stages.release.files import kept_page

    line = Line()
    digest, _ = find(line, release)
    console.print(_IMAGE.sub("", kept_page(line, digest, "report.md").decode()), markup=False)
    for each in _reviews(line):
        for one in each.candidates:
            if one.release == digest:
                _show(line, one)
        for gone in each.aside:
            if gone.release == digest:
                console.print(f"{digest}  {gone.state}: {gone.why}", markup=False)
    if key is None:
        return
    decision = str(typer.prompt(f"sign what? {' | '.join(_DECISIONS)}", default="nothing"))
    if decision not in _DECISIONS:
        raise BadInput(f"{decision!r} is no decision: nothing was signed")
    if decision != "nothing":
        reason = str(typer.prompt("why? it is kept in the audit log")) if decision == "reject" else ""
        sign_decision(digest, decision, key, principal, hours, reason)


def _reviews(line: Line) -> "list[Review]":
    from pipelines.stages.release.review import review as look

    return look(line, line.products(), datetime.now(UTC))


def _show(line: Line, one: "Candidate") -> None:
    from pipelines.stages.release.files import report_folder

    signed = f"{len(one.approved_by)} of {one.rule.needed} signatures"
    uncounted = [each for each in one.words if each.standing != "counts"]
    by = f" ({', '.join(one.approved_by)})" if one.approved_by else ""
    lines = [
        f"{one.release}  {one.state}, {signed}{by}",
        f"  gate      {one.verdict}: {one.why}",
        f"  recorded  trained {one.method}, registered {one.registered:%Y-%m-%d %H:%M} UTC",
        *(f"  lacks     {each}" for each in one.missing),
        *(f"  {each.decision:<9} {each.principal}: {_STANDING[each.standing]} {each.reason}" for each in uncounted),
        f"  report    {report_folder(line.home, one.release) / 'report.html'}",
        f"  page      {line.review_url}/dossier/{one.release} (assay up)",
        *(f"  $ {command}" for _, command in one.commands),
    ]
    console.print("\n".join(lines), markup=False)
