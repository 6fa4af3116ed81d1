"""``assay gate``: the gate on plain files of scores, for CI."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from data_contracts.errors import BadInput, Refused
from data_contracts.verdicts import CriterionResult, Decision
from evals.plain_scores import ScoreFile, check_paired, paired_results, score_file, unjudged
from evals.plots import bound_of
from pipelines.terminal import JsonFlag, console, show

app = typer.Typer()

EXIT: dict[Decision, int] = {"promote": 0, "hold": 3, "inconclusive": 4}
_WIDTH = 200
"""Of the table: its lines are not folded to fit a log or a narrow terminal."""


@app.command()
def gate(
    candidate: Annotated[
        Path,
        typer.Option(help='JSON lines of {"suite", "item", "cluster"?, "score"}; scores in [0, 1], more is better.'),
    ],
    baseline: Annotated[Path, typer.Option(help="The same of what the candidate is compared with, on the same items.")],
    policy: Annotated[Path, typer.Option(help="What the candidate must show (YAML, as in evals/policies).")],
    rerun: Annotated[
        list[Path] | None,
        typer.Option(help="The baseline run again with another seed, for the noise floor; may be repeated."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge a candidate's scores beside a baseline's. Exit code 0 promote, 3 hold, 4 inconclusive, 2 bad input.

    Example: assay gate --candidate a.jsonl --baseline b.jsonl --policy evals/policies/plain-example.yaml
    """
    from evals.gate import evaluate_policy
    from evals.policy import load_policy

    wanted = load_policy(policy)
    files = [_scores(path) for path in (candidate, baseline, *(rerun or []))]
    results = paired_results(wanted, files[0], files[1])
    for file in files[2:]:
        for suite in sorted({each.suite for each in wanted.criteria if each.compares}):
            if suite not in file.suites:
                raise BadInput(f"{file.source} has no row of suite {suite}: run the whole baseline again")
            check_paired(suite, files[1], file)
    try:
        reruns = [paired_results(wanted, files[0], file) for file in files[2:]]
        criteria, decision, reason = evaluate_policy(wanted, results, reruns)
    except Refused as error:
        raise BadInput(str(error)) from error
    silent = unjudged(wanted, files)
    if as_json:
        facts: dict[str, Any] = {"policy": wanted.name, "policy_digest": wanted.digest}
        facts |= {"files": {file.source: file.digest for file in files}, "decision": decision, "reason": reason}
        show(facts | {"unjudged": silent, "criteria": [each.payload() for each in criteria]})
    else:
        _tell(criteria, decision, reason, silent)
    raise typer.Exit(EXIT[decision])


def _scores(path: Path) -> ScoreFile:
    from data_contracts.digests import sha256_file
    from pipelines.stages.data.plain import rows

    found = list(rows(path))
    return score_file(str(path), sha256_file(path), found)


def _tell(criteria: Sequence[CriterionResult], decision: Decision, reason: str, silent: Mapping[str, int]) -> None:
    table = Table("outcome", "criterion", box=None, pad_edge=False)
    for head in ("n", "clusters", "baseline", "candidate", "effect", "interval", "bound", "MDE", "noise"):
        table.add_column(head, justify="right")
    for each in criteria:
        table.add_row(
            each.outcome,
            each.name,
            str(each.n),
            str(each.clusters),
            f"{each.baseline_mean:.3f}",
            f"{each.candidate_mean:.3f}",
            f"{each.effect:+.3f}",
            f"[{each.ci_low:+.3f}, {each.ci_high:+.3f}]",
            f"{bound_of(each):+.3f}",
            f"{each.mde:.3f}",
            "-" if each.noise is None else f"{each.noise:.3f}",
        )
    Console(width=_WIDTH, highlight=False).print(table)
    console.print()
    for each in criteria:
        console.print(f"{each.name}: {each.outcome}: {each.kind} on {each.suite}: {each.reason}", markup=False)
    for suite, items in silent.items():
        console.print(f"suite {suite} ({items} items) decides nothing: no criterion names it", markup=False)
    console.print(f"\n{decision}: {reason}", markup=False)
