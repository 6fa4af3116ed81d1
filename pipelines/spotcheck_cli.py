"""``assay spotcheck ...``: people look at the edge cases of a candidate and sign what they find."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from data_contracts.chain import SPOTCHECK_NAMESPACE
from data_contracts.errors import BadInput
from pipelines.releases_cli import ReleaseId, find
from pipelines.terminal import console
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, help="Edge cases of a candidate, rated and signed by people.")


@app.command("pick")
def pick(
    release: ReleaseId,
    out: Annotated[
        Path, typer.Option(help="JSONL file to write. It holds questions and answers: keep it to reviewers.")
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Items; default: as many as the policy demands.")] = None,
) -> None:
    """Pick the answers to look at, with why each, and write a sheet: fill in each `rating` with good or bad.

    Example: assay spotcheck pick sha256:4f1c --out sheet.jsonl
    """
    from pipelines.stages.data.plain import whole_file, write_row
    from pipelines.stages.release.spotcheck import sheet

    line = Line()
    digest, product = find(line, release)
    rows = sheet(line, line.product(product), digest, count)
    with whole_file(out) as target:
        for row in rows:
            write_row(target, row)
    console.print(f"{len(rows)} answers to rate in {out}\nnext: assay spotcheck import {digest[:19]} {out} --key KEY")


@app.command("import")
def take_in(
    release: ReleaseId,
    sheet: Annotated[Path, typer.Argument(help="The sheet with its ratings; only `item` and `rating` are read.")],
    key: Annotated[Path, typer.Option(help="Your SSH private key (or the public one, with ssh-agent).")],
    principal: Annotated[str, typer.Option("--as", help="Your name in the trust root.")] = "",
) -> None:
    """Sign the ratings of a sheet with your SSH key and record them in the audit log. Your newest ones count.

    Example: assay spotcheck import sha256:4f1c sheet.jsonl --key ~/.ssh/id_ed25519
    """
    from pipelines.stages.data.plain import rows
    from pipelines.stages.release import spotcheck
    from resources.ssh_signatures import sign

    line = Line()
    digest, product = find(line, release)
    ratings: dict[str, Literal["good", "bad"]] = {}
    for number, row in rows(sheet):
        item, rating = row.get("item"), str(row.get("rating") or "").strip().lower()
        if not isinstance(item, str) or item in ratings:
            raise BadInput(f"{sheet}, line {number + 1}: `item` is missing or comes twice")
        if rating not in ("good", "bad"):
            raise BadInput(f"{sheet}, line {number + 1}: the rating of {item} is {rating!r}; write good or bad")
        ratings[item] = cast(Literal["good", "bad"], rating)
    statement = spotcheck.statement_for(line, line.product(product), digest, ratings)
    signature = sign(key, SPOTCHECK_NAMESPACE, spotcheck.message(statement))
    record = spotcheck.record(line, line.product(product), statement, signature, principal)
    good = sum(rating == "good" for rating in ratings.values())
    console.print(f"{good} of {len(ratings)} good, signed by {record.actor} (audit record {record.sequence})")
