"""``assay data agreement | synthesize``: what raters said of rows, and rows that a teacher model writes."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput, Refused
from pipelines.terminal import InFile, OutFile, ReportFile, console, tell_counts
from pipelines.wiring import Line

app = typer.Typer()


@app.command()
def agreement(
    source: InFile,
    item_field: Annotated[str, typer.Option(help="The field that names what is rated; without it each row.")] = "",
    rater_columns: Annotated[str, typer.Option(help="Fields that hold a label each, one a rater: a,b,c.")] = "",
    rater_field: Annotated[str, typer.Option(help="Where a row is one rating: the field that names its rater.")] = "",
    label_field: Annotated[str, typer.Option(help="Where a row is one rating: the field that holds its label.")] = "",
    tie: Annotated[str | None, typer.Option(help="The label that says that neither answer is better.")] = None,
    order: Annotated[str, typer.Option(help="Labels from low to high, for an ordinal scale: 1,2,3,4,5.")] = "",
    report: ReportFile = None,
) -> None:
    """How far raters agree: Krippendorff's alpha, what each rater did, and the rows they disagree on.

    Example: assay data agreement --in rows.jsonl --item-field id --rater-columns rater1,rater2,rater3
    """
    from pipelines.stages.data.agree import rate_file
    from pipelines.stages.data.plain import write_report

    if bool(rater_columns) == bool(item_field and rater_field and label_field):
        raise BadInput("give either --rater-columns, or --item-field, --rater-field and --label-field")
    found = rate_file(source, item_field, _words(rater_columns), rater_field, label_field, tie, _words(order))
    write_report(report, found)
    alpha = found["alpha"]
    console.print(
        f"alpha {alpha['alpha']:.3f} ({found['level']}, 95% interval {alpha['low']:.3f} to {alpha['high']:.3f}; "
        f"{alpha['items']} items with two ratings or more, {alpha['raters']} raters)"
    )
    for rater, said in found["raters"].items():
        agrees = "nobody to compare with" if said["agrees"] is None else f"agrees with the others {said['agrees']:.3f}"
        shares = ", ".join(f"{label} {share:.3f}" for label, share in said["shares"].items())
        warned = "; gives one label only" if said["one_sided"] else ""
        console.print(f"  {rater}: {said['rated']} rated, {agrees}; {shares}{warned}")
    console.print(f"{len(found['disagreements'])} rows are not rated alike")
    tell_counts(found["in"], [drop["reason"] for drop in found["dropped"]])


def _words(listed: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in listed.split(",") if word.strip())


@app.command()
def synthesize(
    plan: Annotated[Path, typer.Option(help="YAML: intents with seeds, lengths, languages, teacher, tools.")],
    target: OutFile,
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible server, up to /v1.")],
    report: ReportFile = None,
    model: Annotated[str, typer.Option(help="Name by which the endpoint knows the plan's teacher, if another.")] = "",
    api_key_env: Annotated[str, typer.Option(help="Environment variable that holds the endpoint's key.")] = "",
    refuse_pii: Annotated[
        bool, typer.Option("--refuse-pii", help="Drop rows in which personal data is found.")
    ] = False,
) -> None:
    """Let a teacher model write rows, by intent, length and language; keep those that pass every check.

    Its answers are kept beside the output (OUT.answers): after a crash only what is missing is asked again.

    Example: assay data synthesize --plan pipelines/synthesis/billing-support.yaml --endpoint URL --out rows.jsonl
    """
    from pipelines.stages.data.plain import whole_file, write_report, write_row
    from pipelines.stages.data.synthesize import synthesize
    from pipelines.stages.data.synthetic.answer_file import AnswerFile
    from pipelines.stages.data.synthetic.plan import load_plan
    from resources.language import LangidDetector
    from resources.openai_endpoint import OpenAiEndpoint

    asked, server = load_plan(plan), OpenAiEndpoint(endpoint, _key(api_key_env))
    pii = Line().pii if refuse_pii else None
    with AnswerFile(target.with_name(f"{target.name}.answers")) as answers:
        served = model or asked.teacher.model
        made = synthesize(asked, served, server, LangidDetector(), answers, pii, _answered)
    write_report(report, made.payload())
    tell_counts(len(made.rows) + len(made.report.dropped), [drop["reason"] for drop in made.report.dropped])
    if not made.rows:
        raise Refused(f"no row of plan {asked.name} passed the checks: nothing is written to {target}")
    with whole_file(target) as handle:
        for row in made.rows:
            write_row(handle, row)


def _key(variable: str) -> str | None:
    if variable and not os.environ.get(variable):
        raise BadInput(f"--api-key-env {variable}: the environment variable is not set; set it to the endpoint's key")
    return os.environ[variable] if variable else None


def _answered(done: int, total: int) -> None:
    if done % max(1, total // 20) == 0 or done == total:
        print(f"{done} of {total} requests answered", file=sys.stderr)
