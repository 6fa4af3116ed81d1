"""What the commands share: options that several take, and how they print."""

import getpass
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data_contracts.errors import AssayError
from pipelines.wiring import Line

console = Console(highlight=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ProductName = Annotated[str, typer.Argument(help="A product: the name of a file in pipelines/products.")]


def person() -> str:
    """Who is at the terminal, for the audit log: the account's name, or its number where it has none."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):
        return f"cli:{os.getuid()}"


def show(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def aside(wanted: bool = True) -> Iterator[None]:
    """Meanwhile what is printed, by children too, goes to the standard error: the output is kept for one document."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def tell(line: Line) -> None:
    """Send the notices that are due. What cannot be sent is said, and sent again later: it holds up nothing."""
    from pipelines.stages.release.notices import deliver

    try:
        told = deliver(line)
    except (AssayError, OSError) as error:
        console.print(f"notices wait: {error}")
        return
    for notice in told.sent:
        console.print(f"told {notice.address} of audit record {notice.record.sequence}")
    for notice, why in told.failed:
        console.print(f"not told yet, tried again later: audit record {notice.record.sequence}: {why}")


InFile = Annotated[Path, typer.Option("--in", help="JSONL, CSV or Parquet file.")]
OutFile = Annotated[Path, typer.Option("--out", help="JSONL file to write; it appears only when it is whole.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="JSON file: in, out, and each dropped row with why.")]


def tell_counts(rows_in: int, reasons: list[str]) -> None:
    """Rows in and out, and the commonest reasons of those that were dropped."""
    console.print(f"{rows_in} rows in, {rows_in - len(reasons)} out, {len(reasons)} dropped")
    for reason, count in Counter(reasons).most_common(20):
        console.print(f"  {count:>7}  {reason}")


def teller() -> Callable[[int], None]:
    """Tells on stderr, every ten seconds, how many rows are done."""
    told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= 10:
            told = time.monotonic()
            print(f"{done} rows done", file=sys.stderr, flush=True)

    return tell
