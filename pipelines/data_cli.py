"""``assay data ...``: questions to the ledger, and the data plane's tools on plain files.

Each report on a file holds the counts and every dropped row.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput, Refused
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, help="The ledger's answers; the data plane's tools on plain files.")

InFile = Annotated[Path, typer.Option("--in", help="JSONL, CSV or Parquet file.")]
OutFile = Annotated[Path, typer.Option("--out", help="JSONL file to write; it appears only when it is whole.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="JSON file: in, out, and each dropped row with why.")]
TextField = Annotated[str, typer.Option("--field", help="The field that holds the text.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Drop a line that cannot be read, with the reason, instead of stopping.")
]


@app.command()
def check(
    source: Annotated[Path, typer.Option("--in", help="JSONL, CSV or Parquet file.")],
    contract: Annotated[Path, typer.Option(help="Data contract (Open Data Contract Standard YAML).")],
    report: ReportFile = None,
) -> None:
    """Hold every row of a file to a data contract. Exit code 1 when a row breaks it.

    Example: assay data check --in rows.jsonl --contract data_contracts/contracts/billing-conversations.yaml
    """
    from pipelines.stages.data.check import check_file
    from pipelines.stages.data.plain import write_report

    found = check_file(source, contract)
    write_report(report, found.payload())
    _tell(found.rows_in, [drop["reason"] for drop in found.dropped])
    if found.dropped:
        raise typer.Exit(1)


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
    from data_contracts.errors import BadInput
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
    _tell(found["in"], [drop["reason"] for drop in found["dropped"]])


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
    from pipelines.wiring import Line
    from resources.language import LangidDetector
    from resources.openai_endpoint import OpenAiEndpoint

    asked, server = load_plan(plan), OpenAiEndpoint(endpoint, _key(api_key_env))
    pii = Line().pii if refuse_pii else None
    with AnswerFile(target.with_name(f"{target.name}.answers")) as answers:
        served = model or asked.teacher.model
        made = synthesize(asked, served, server, LangidDetector(), answers, pii, _answered)
    write_report(report, made.payload())
    _tell(len(made.rows) + len(made.report.dropped), [drop["reason"] for drop in made.report.dropped])
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


@app.command()
def deduplicate(
    source: InFile,
    field: TextField,
    target: OutFile,
    report: ReportFile = None,
    threshold: Annotated[
        float, typer.Option(help="Least similarity of a near copy (Jaccard of word trigrams), 0.5 to 1; 1: none.")
    ] = 0.8,
    tier_field: Annotated[
        str | None, typer.Option(help="Field with gold, silver or bronze: of copies the best tier stays.")
    ] = None,
    date_field: Annotated[str | None, typer.Option(help="Field with an ISO 8601 date: then the oldest stays.")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Leave out rows whose text copies another one's, exactly or nearly. Of copies the first stays.

    Example: assay data deduplicate --in rows.jsonl --field text --out unique.jsonl --report report.json
    """
    from pipelines.stages.data.deduplicate_file import Rank, deduplicate_file

    rank = Rank(tier_field, date_field)
    found = deduplicate_file(source, field, target, report, threshold, rank, skip_bad)
    _tell(found["in"], [drop["reason"] for drop in found["dropped"]])


@app.command()
def decontaminate(
    source: InFile,
    field: TextField,
    against: Annotated[Path, typer.Option(help="The evaluation set: JSONL, CSV or Parquet file.")],
    against_field: Annotated[str, typer.Option(help="The field of the evaluation set that holds the text.")],
    target: OutFile,
    report: ReportFile = None,
    semantic: Annotated[
        bool, typer.Option("--semantic/--no-semantic", help="Look for paraphrases too, about 50 rows a second.")
    ] = True,
    similarity: Annotated[
        float, typer.Option(help="Least score of a paraphrase: 2/3 embedding, 1/3 rare words and numbers.")
    ] = 0.67,
    embedding_model: Annotated[
        Path | None, typer.Option(help="Folder of a sentence-transformers model; all-MiniLM-L6-v2 without it.")
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Leave out rows that hold an item of an evaluation set, in its words or in others. The report holds both texts.

    Example: assay data decontaminate --in rows.jsonl --field text --against eval.jsonl --against-field text --out
    clean.jsonl --report report.json
    """
    from pipelines.stages.data.decontaminate_file import decontaminate_file
    from resources.embedding import SentenceEmbedder

    embedder = SentenceEmbedder(embedding_model) if semantic else None
    files = (source, field, against, against_field, target, report)
    found = decontaminate_file(*files, embedder, similarity, skip_bad, _progress())
    _tell(found["in"], [drop["reason"] for drop in found["dropped"]])


def _progress() -> Callable[[int], None]:
    """Tells on stderr, every ten seconds, how many rows are done."""
    told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= 10:
            told = time.monotonic()
            print(f"{done} rows done", file=sys.stderr, flush=True)

    return tell


@app.command()
def who(
    subject: Annotated[str, typer.Option(help="A person, as the column of the contract's subject key names them.")],
    as_json: JsonFlag = False,
) -> None:
    """Which rows are about a person, and the data sets, checkpoints, releases and routes that they went into.

    Example: assay data who --subject "Maria Keller"
    """
    from pipelines.stages.release.trace import trace_subject

    found = trace_subject(Line(), subject)
    if as_json:
        show(found.payload())
        return
    state = ", erased" if found.erased else ""
    made = len(found.rows) - found.records
    console.print(f"subject {found.subject}{state}: {found.records} records, {made} rows made from them")
    for source in found.sources:
        console.print(f"  source      {source}")
    for stage in found.data:
        console.print(f"  data set    {stage.data_set}  {stage.product} {stage.stage}")
    for checkpoint in found.checkpoints:
        console.print(f"  checkpoint  {checkpoint}")
    for use in found.releases:
        console.print(f"  release     {use.release}  {', '.join(use.routes) or 'not live'}")


@app.command()
def expiring(
    before: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="A day: what may no longer be learned from on it.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Rows whose retention has passed or passes before a day, by source and contract, soonest first.

    Example: assay data expiring --before 2031-01-01
    """
    found = Line().ledger.expiring(before.date())
    if as_json:
        show([each.payload() for each in found])
        return
    for each in found:
        console.print(f"{each.retain_until}  {each.records:>9} records, {each.derived} made from them  {each.source}")
    if not found:
        console.print(f"nothing expires before {before.date()}")


@app.command()
def card(
    data_set: Annotated[str, typer.Argument(help="sha256:... of a data set, or a product: what it last trained on.")],
    out: Annotated[Path, typer.Option(help="Folder to write the card to.")] = Path("data-card"),
) -> None:
    """Write a data set's card: card.md with plots, and Croissant metadata. Counts, terms and decisions, no row text.

    Example: assay data card billing-assistant --out data-card
    """
    from pipelines.stages.release.data_card import find_set, write_data_card

    line = Line()
    console.print(f"written: {write_data_card(line, find_set(line, data_set), out)}")


def _tell(rows_in: int, reasons: list[str]) -> None:
    console.print(f"{rows_in} rows in, {rows_in - len(reasons)} out, {len(reasons)} dropped")
    for reason, count in Counter(reasons).most_common(20):
        console.print(f"  {count:>7}  {reason}")
