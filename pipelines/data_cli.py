"""``assay data ...``: the data plane's tools on plain files. Each report holds the counts and every dropped row."""

import os
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines import corpus_cli, ledger_cli
from pipelines.stages.data.scrub_text import Operator
from pipelines.terminal import InFile, OutFile, ReportFile, console, tell_counts, teller

app = typer.Typer(no_args_is_help=True, help="The data plane's tools on plain files, and the ledger's answers.")

TextField = Annotated[str, typer.Option("--field", help="The field that holds the text.")]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Drop a line that cannot be read, with the reason, instead of stopping.")
]

EmbeddingModel = Annotated[
    Path | None, typer.Option(help="Folder of a sentence-transformers model; all-MiniLM-L6-v2 without it.")
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
    tell_counts(found.rows_in, [drop["reason"] for drop in found.dropped])
    if found.dropped:
        raise typer.Exit(1)


@app.command()
def scrub(
    source: InFile,
    field: TextField,
    target: OutFile,
    report: ReportFile = None,
    operator: Annotated[
        Operator,
        typer.Option(
            help="What stands for a finding: redact (<KIND>), mask (****), hash (keyed by ASSAY_SCRUB_KEY), or replace "
            "(a made-up value, the same all over a row)."
        ),
    ] = Operator.REDACT,
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind of entity; may be repeated.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Local processes, instead of what ASSAY_ENGINE says. The output is the same."),
    ] = None,
) -> None:
    """Take personal data and secrets out of a field. Each row keeps its other fields and gets ``entities``: kind, place
    in the input text, score. JSON in the field stays valid JSON.

    Example: assay data scrub --in rows.jsonl --field text --out clean.jsonl --report report.json
    """
    from pipelines.stages.data.scrub_file import ScrubWork, scrub_file
    from pipelines.wiring import Line
    from resources.batch_engine import LocalBatchEngine
    from resources.pii import PresidioAnalyzer

    key = os.environ.get("ASSAY_SCRUB_KEY", "").encode()
    if operator is Operator.HASH and not key:
        raise BadInput("--operator hash needs a key: set ASSAY_SCRUB_KEY, and keep it if hashes must match later ones")
    work = ScrubWork(PresidioAnalyzer(), operator, dict.fromkeys(kind, 0.0) if kind else None, key)
    engine = LocalBatchEngine(workers) if workers else Line().engine
    done = scrub_file(source, field, target, engine, work, report, teller())
    tell_counts(done.rows_in, [])
    for name, count in done.entities.most_common():
        console.print(f"  {count:>7}  {name}")


@app.command()
def certify(
    labelled: Annotated[Path, typer.Option(help="JSONL of {text, spans: [{entity_type, start, end}]}.")],
    out: Annotated[Path | None, typer.Option(help="JSON file: precision, recall and F2 by entity.")] = None,
) -> None:
    """Measure on labelled text how much personal data the detector finds.

    Example: assay data certify --labelled labelled.jsonl --out certificate.json
    """
    from rich.table import Table

    from pipelines.stages.data.certificate import certify as measured
    from pipelines.stages.data.certificate import read_labelled
    from pipelines.stages.data.plain import write_report
    from resources.pii import PresidioAnalyzer

    certificate = measured(read_labelled(labelled), PresidioAnalyzer())
    write_report(out, certificate.payload())
    table = Table("entity", "spans", "precision", "recall (95 %)", "F2")
    for kind, score in [*certificate.entities.items(), ("overall", certificate.overall)]:
        precision, f2 = (f"{value:.3f}" if value is not None else "-" for value in (score.precision, score.f2))
        interval = f"{score.recall.estimate:.3f} ({score.recall.low:.3f} to {score.recall.high:.3f})"
        table.add_row(kind, str(score.spans), precision, interval, f2)
    console.print(table)


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
    meaning: Annotated[
        float | None,
        typer.Option(
            min=0.8,
            max=0.99,
            help="Also rows that say the same in other words: least cosine, such as 0.9. English, up to 160 words.",
        ),
    ] = None,
    embedding_model: EmbeddingModel = None,
    skip_bad: SkipBad = False,
) -> None:
    """Leave out rows whose text copies another one's, exactly, nearly, or with --meaning in other words. Of copies the
    first stays.

    Example: assay data deduplicate --in rows.jsonl --field text --out unique.jsonl --report report.json
    """
    from pipelines.stages.data.deduplicate_file import Rank, deduplicate_file
    from pipelines.stages.data.meaning import Meaning
    from resources.embedding import SentenceEmbedder

    if embedding_model and meaning is None:
        raise BadInput("--embedding-model is for copies in other words: give --meaning too, such as 0.9")
    rank = Rank(tier_field, date_field)
    alike = Meaning(SentenceEmbedder(embedding_model), meaning) if meaning else None
    found = deduplicate_file(source, field, target, report, threshold, rank, skip_bad, alike, teller())
    tell_counts(found["in"], [drop["reason"] for drop in found["dropped"]])


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
    embedding_model: EmbeddingModel = None,
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
    found = decontaminate_file(*files, embedder, similarity, skip_bad, teller())
    tell_counts(found["in"], [drop["reason"] for drop in found["dropped"]])


app.add_typer(corpus_cli.app)
app.add_typer(ledger_cli.app)
