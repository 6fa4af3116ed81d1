"""What `make demo` and `make loop` do alike: type commands as a person would, and wait for what they begin."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.errors import AssayError
from data_contracts.manifests import ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.wiring import Line

PRODUCT = "billing-assistant"
REVIEWER = "demo-reviewer"
console = Console(highlight=False, soft_wrap=True)
spent: list[tuple[str, float]] = []


@contextmanager
def part(title: str) -> Iterator[None]:
    console.print(f"\n== {title}", style="bold")
    started = time.monotonic()
    yield
    spent.append((title, time.monotonic() - started))


def assay(*arguments: str, quiet: bool = False) -> str:
    """Run one command as a person would; its output is shown unless it is data for the next step."""
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    if not quiet:
        console.print(f"$ assay {' '.join(arguments)}", style="dim")
    done = subprocess.run(command, stdout=subprocess.PIPE if quiet else None, text=True)
    if done.returncode != 0:
        raise AssayError(f"`assay {' '.join(arguments)}` failed (exit {done.returncode}); see above")
    return (done.stdout or "").strip()


def make_trust_root(line: Line) -> Path:
    """The demo's own trust root beside the home: a throwaway reviewer key and the line of the log key."""
    trust = line.settings.trust_root
    reviewer = trust.parent / REVIEWER
    if not reviewer.exists():
        trust.parent.mkdir(parents=True, exist_ok=True)
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", REVIEWER, "-f", str(reviewer)]
        subprocess.run(make, check=True)
    public = reviewer.with_suffix(".pub").read_text().strip()
    log_line = assay("init", quiet=True)
    trust.write_text(f'{REVIEWER} namespaces="assay-approval-v1,assay-root-cause-v1" {public}\n{log_line}\n')
    return reviewer


def live_release(line: Line, product: Product) -> str | None:
    return live_releases(line.log.records()).get((product.name, product.environment))


def pending(line: Line, product: str) -> list[str]:
    """The product's releases that wait for approval, oldest first."""
    waiting = json.loads(assay("pending", "--json", quiet=True))
    return [release for release in waiting if line.store.get_manifest(release, ReleaseManifest).product == product]


def wait_for_promotion(line: Line, product: Product, release: str, minutes: float = 5) -> None:
    """Until the approvals sensor has promoted the release; the audit log tells each step."""
    seen = len(line.log.records())
    deadline = time.monotonic() + minutes * 60
    while live_release(line, product) != release:
        records = line.log.records()
        for record in records[seen:]:
            console.print(f"  {record.event}: {record.body.get('outcome') or record.body.get('release') or ''}")
            if record.event == "canary.recorded" and record.body.get("outcome") == "fail":
                raise AssayError("the canary failed; the champion stays. See the audit log")
            raise_if_failed(line, record)
        seen = len(records)
        if time.monotonic() > deadline:
            raise AssayError(
                f"no promotion after {minutes:g} minutes: see the run in the Dagster UI and {line.home / 'logs'}"
            )
        time.sleep(1)


def raise_if_failed(line: Line, record: AuditRecord) -> None:
    """Nothing more comes of a run that failed."""
    if record.event == "run.failed":
        run, page = record.body["run"], f"http://127.0.0.1:{line.settings.dagster_port}/runs/{record.body['run']}"
        raise AssayError(
            f"run {run} of the job {record.body['job']} failed at {record.body['step']} ({record.body['error']}): "
            f"`assay up`, and {page} tells why"
        )


def show_times(started: float) -> None:
    """``started`` is of `time.monotonic`."""
    table = Table("part", "seconds", box=None)
    for title, seconds in spent:
        table.add_row(title, f"{seconds:.0f}")
    console.print(table)
    console.print(f"done in {(time.monotonic() - started) / 60:.1f} minutes (set-up not counted)", style="bold")
