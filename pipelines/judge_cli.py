"""``assay judge ...``: judge models, which count only while they are calibrated against people."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import BadInput
from pipelines.distil_cli import server_key
from pipelines.terminal import JsonFlag, console, show
from pipelines.wiring import Line

app = typer.Typer(no_args_is_help=True, help="Judge models and how far they agree with people.")

UNTRUSTED = 3
"""Exit code of a judge that does not reach what the policy asks."""


@app.command()
def calibrate(
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible server, up to /v1.")],
    model: Annotated[str, typer.Option(help="Name by which the server knows the judge.")],
    labelled: Annotated[Path, typer.Option("--set", help="JSONL, CSV or Parquet of items with people's labels.")],
    task: Annotated[str, typer.Option(help="A file of evals/judges by name (faithfulness, preference), or a YAML.")],
    policy: Annotated[str, typer.Option(help="A file of evals/judges/policies by name, or a YAML.")] = "default",
    mapping: Annotated[Path | None, typer.Option(help="YAML with the set's columns, in place of the task's.")] = None,
    sample: Annotated[int | None, typer.Option(min=8, help="Ask about this many items, drawn by a seed.")] = None,
    template: Annotated[
        Path | None, typer.Option(help="Chat template to send along, where the model has none.")
    ] = None,
    api_key_env: Annotated[str, typer.Option(help="Environment variable that holds the server's key.")] = "",
    concurrency: Annotated[int, typer.Option(min=1, help="Questions asked at once.")] = 8,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer; each is asked for twice.")] = 120,
    as_json: JsonFlag = False,
) -> None:
    """Ask a judge about items that people labelled; print Cohen's kappa, swap consistency and failures, and keep them.

    Exit code 3 when the policy does not trust it: its metrics are then shown as untrusted and pass no gate.

    Example: assay judge calibrate --endpoint http://127.0.0.1:8000/v1 --model NAME --set begin_wow.jsonl
    --task faithfulness
    """
    from evals.calibration import calibrate as measure
    from evals.calibration import keep, read_set
    from evals.judge import Judge, RagasJudge, load_judge, load_mapping, load_policy
    from pipelines.stages.data.plain import rows
    from resources.openai_endpoint import OpenAiEndpoint

    file, rule = load_judge(task), load_policy(policy)
    read = read_set(rows(labelled), load_mapping(mapping, file) if mapping else file.set, str(labelled), sample)
    if template is not None and not template.is_file():
        raise BadInput(f"{template}: no such file; name a chat template")
    judge = Judge(file, model, template.read_text(encoding="utf-8") if template else "")
    server = OpenAiEndpoint(
        endpoint.rstrip("/"), server_key(api_key_env), concurrency, timeout, retries=1, patient=True
    )
    line, began = Line(), time.monotonic()
    embedder = line.embedder if isinstance(file, RagasJudge) else None
    found = measure(judge, server, read, embedder, _tell)
    digest, reason = keep(line.store, found), found.distrust(rule)
    line.store.put_manifest(rule)
    if as_json:
        told = {"calibration": digest, "trusted": not reason, "reason": reason, "policy": rule.name}
        show(told | found.payload() | {"seconds": round(time.monotonic() - began, 1)})
    else:
        console.print(f"{file.name}: {model}, {found.items} items in {found.clusters} clusters")
        interval = f"[{found.kappa_low:.3f}, {found.kappa_high:.3f}]"
        console.print(f"kappa        {found.kappa:.3f} {interval}  agrees {found.agreement:.3f}")
        if found.consistency is not None:
            first = "" if found.first_place is None else f"  names the first place {found.first_place:.3f}"
            console.print(f"consistency  {found.consistency:.3f} (at least {found.consistency_low:.3f}){first}")
        console.print(f"failed       {sum(found.failures.values())} of {found.asked} (up to {found.failed_high:.3f})")
        for why, count in found.failures.items():
            console.print(f"  {count:>7}  {why}")
        console.print(f"calibration  {digest}\n{'untrusted: ' + reason if reason else 'trusted'} (policy {rule.name})")
    if reason:
        raise typer.Exit(UNTRUSTED)


def _tell(done: int, total: int) -> None:
    if done % max(1, total // 10) == 0 or done == total:
        print(f"{done} of {total} answered", file=sys.stderr, flush=True)
