"""``make demo``: the product billing-assistant from raw data to an answer from the served, approved model.

It types the commands a person would type. It alone holds a throwaway reviewer key, in a trust root of its own: nothing
else can sign an approval by itself.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from data_contracts.errors import AssayError
from data_contracts.manifests import CheckpointManifest, DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.verdicts import GateVerdict
from evals.suite import tool_catalogue
from pipelines.demo_steps import (
    PRODUCT,
    REVIEWER,
    assay,
    console,
    live_release,
    make_trust_root,
    part,
    pending,
    show_times,
    wait_for_promotion,
)
from pipelines.wiring import Line

QUESTION = "Hi, this is Robin. Something is off with INV-2231, could you open it for me?"
TOOLS = ("get_invoice", "issue_refund", "list_payments")


def demo_tools(line: Line) -> Path:
    """The tools that the demo's question may use, as a file for ``assay ask``."""
    path = line.home / "demo-tools.jsonl"
    path.write_text("".join(tool_catalogue()[name].model_dump_json() + "\n" for name in TOOLS))
    return path


def summary(line: Line, release_id: str, answer: dict[str, Any]) -> None:
    store = line.store
    release = store.get_manifest(release_id, ReleaseManifest)
    model = store.get_manifest(release.model, ModelManifest)
    checkpoint = store.get_manifest(model.checkpoint, CheckpointManifest)
    verdict = store.get_manifest(release.verdict, GateVerdict)
    console.print("\n== Summary (all training data is synthetic)", style="bold")
    for digest in model.datasets:
        data = store.get_manifest(digest, DatasetManifest)
        console.print(f"data       {data.stage} {digest}: {data.counts.rows_out} rows out")
    for stage, counts in lineage_counts(line, model):
        dropped = ", ".join(f"{n} {reason}" for reason, n in counts.dropped.items()) or "none"
        console.print(f"           {stage:<15} {counts.rows_in:>5} in  {counts.rows_out:>5} out  dropped: {dropped}")
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in sorted(checkpoint.metrics.items()) if "@" not in name)
    console.print(f"training   {checkpoint.method} {checkpoint.stage}, step {checkpoint.step}: {metrics}")
    table = Table(
        Column("criterion", min_width=28), "n", "base*", "candidate", "effect", "95% interval", "outcome", box=None
    )
    for row in verdict.criteria:
        interval = f"[{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
        means = (f"{row.baseline_mean:.3f}", f"{row.candidate_mean:.3f}", f"{row.effect:+.3f}")
        table.add_row(row.name, str(row.n), *means, interval, row.outcome)
    console.print(f"gate       {verdict.decision}: {verdict.reason}")
    console.print(table)
    console.print(
        "           * or the bound; the base model is shown examples, and all answer under the same JSON schema"
    )
    approved = [r for r in line.log.records() if r.event == "approval.accepted" and r.body["release"] == release_id]
    console.print(
        f"approval   {', '.join(str(r.body['principal']) for r in approved)} (audit record {approved[-1].sequence})"
    )
    console.print(f"release    {release_id}")
    console.print(f"question   {QUESTION}")
    console.print(f"answer     {answer['choices'][0]['message']['content']}")
    for name, value in answer["assay"].items():
        console.print(f"           {name:<10} {value}")
    console.print(f"report     {line.home / 'reports' / release_id[7:23] / 'report.html'}")
    console.print(
        "look       make up, then `assay status` for where Dagster, MLflow, the gateway and the review page are"
    )
    console.print(f"verify     .venv/bin/assay verify {release_id}")


def lineage_counts(line: Line, model: ModelManifest) -> Iterator[tuple[str, Any]]:
    """(stage, counts) of every data step behind the model, first step first."""
    steps: dict[str, DatasetManifest] = {}
    queue = list(model.datasets)
    while queue:
        digest = queue.pop()
        if digest not in steps:
            steps[digest] = line.store.get_manifest(digest, DatasetManifest)
            queue.extend(steps[digest].inputs)
    order = [
        "raw",
        "contracted",
        "ledgered",
        "scrubbed",
        "deduplicated",
        "decontaminated",
        "mixture",
        "splits",
        "preferences",
    ]
    for manifest in sorted(steps.values(), key=lambda m: order.index(m.stage) if m.stage in order else len(order)):
        yield manifest.stage, manifest.counts


def main() -> None:
    started = time.monotonic()
    line = Line()
    product = line.product(PRODUCT)
    reviewer = make_trust_root(line)
    try:
        with part("Data, training, evaluation, gate (Dagster; done work is skipped)"):
            assay("run", PRODUCT)
        waiting = pending(line, PRODUCT)
        candidate = waiting[-1] if waiting else live_release(line, product)
        if candidate is None:
            raise AssayError("the gate did not promote the candidate, so there is nothing to approve: see above")
        with part("Standing system: Dagster, MLflow, vLLM, gateway"):
            assay("up")
        with part("Approval by signature, then promotion by the sensor: challenger, canary, champion"):
            if waiting:
                assay("approve", candidate, "--key", str(reviewer), "--as", REVIEWER)
            wait_for_promotion(line, product, candidate)
            console.print(f"live: {candidate}")
        with part("An answer through the gateway"):
            os.environ["ASSAY_API_KEY"] = assay("key", "create", product.tenant, quiet=True)
            answer = json.loads(assay("ask", PRODUCT, QUESTION, "--tools", str(demo_tools(line)), quiet=True))
        with part("The chain, walked offline"):
            assay("verify", candidate)
    finally:
        with part("Stopping the servers"):
            assay("down")
    summary(line, candidate, answer)
    show_times(started)


if __name__ == "__main__":
    try:
        main()
    except AssayError as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; `make demo` goes on from here")
