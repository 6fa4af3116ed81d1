"""Start a Dagster run from a terminal and show its progress in a few lines; the whole log goes to a file."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data_contracts.errors import AssayError

# 2026-01-31 12:00:00 +0000 - dagster - INFO - __ASSET_JOB - <run id> - <pid or step> - <message>
_EVENT = re.compile(r" - (?P<step>[a-z0-9_]+) - (?P<kind>STEP_START|STEP_SUCCESS|STEP_FAILURE) - (?P<text>.*)")
_NOTE = re.compile(
    r" - dagster - (?P<level>INFO|WARNING|ERROR) - \S+ - [0-9a-f-]{36} - (?P<step>[a-z0-9_]+) - (?P<text>.*)"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(AssayError):
    """A Dagster run ended without success; the message holds the step, the reason and the log file."""


def materialize(selection: str, product: str, home: Path, say: Callable[[str], None]) -> None:
    """Materialize assets of one product, in a process of its own under ``home``'s Dagster instance.

    Ctrl-C goes to the run, which writes a checkpoint first; doing the same again goes on from there.
    """
    log = home / "logs" / f"run-{time.strftime('%Y%m%d-%H%M%S')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions"]
    command += ["--select", selection, "--partition", product]
    environment = {**os.environ, "DAGSTER_HOME": str(home / "dagster"), "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as sink,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as run,
    ):
        assert run.stdout is not None  # noqa: S101 (a pipe was asked for)
        last = ""
        try:
            for line in _tee(run.stdout, sink):
                for text in progress(line):
                    last = text if text.startswith("x") else last
                    say(text)
        except KeyboardInterrupt:
            run.wait()
            raise
    if run.returncode != 0:
        raise RunFailed(f"{last.removeprefix('x ') or 'the run failed'} (log: {log})")


def progress(line: str) -> list[str]:
    """What a person wants to see of one log line: steps begun, done, failed, and the steps' own notes."""
    line = _COLOUR.sub("", line.rstrip())
    if event := _EVENT.search(line):
        step = event["step"].replace("__", "/")
        if event["kind"] == "STEP_SUCCESS":
            return [f"+ {step}"]
        return [f"x {step} failed"] if event["kind"] == "STEP_FAILURE" else []
    if note := _NOTE.search(line):
        return [f"  {note['step'].replace('__', '/')}: {note['text']}"]
    return []


def _tee(lines: Iterator[str], sink: object) -> Iterator[str]:
    for line in lines:
        sink.write(line)  # type: ignore[attr-defined]
        yield line
