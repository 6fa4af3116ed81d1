"""Start a Dagster run from a terminal and show its progress in a few lines; the whole log goes to a file."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from data_contracts.errors import AssayError
from resources.programs import prepare_dagster_home

# 2026-01-31 12:00:00 +0000 - dagster - INFO - __ASSET_JOB - <run id> - [<pid> -] <step> - [<event> -] <message>
_LINE = re.compile(
    r" - dagster - (?P<level>[A-Z]+) - \S+ - [0-9a-f-]{36} - (\d+ - )?"
    r"(?P<step>[a-z0-9_]+) - ((?P<event>[A-Z_]+) - )?(?P<text>.*)"
)
# What Dagster says of a blocking check that failed; why is what its asset noted last.
_CHECK = re.compile(r"(?P<asset>\w+/[\w/]+): (?P<check>\w+)")
_SHOWN = ("INFO", "WARNING", "ERROR")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class RunFailed(AssayError):
    """A Dagster run ended without success; the message holds the step, the reason and the log file."""


def materialize(selection: str, product: str, home: Path, say: Callable[[str], None], config: str = "") -> None:
    """Materialize assets of one product, in a process of its own under ``home``'s Dagster instance. ``config`` is
    Dagster's run config as JSON.

    Ctrl-C goes to the run, which writes a checkpoint first; doing the same again goes on from there.
    """
    prepare_dagster_home(home)
    log = home / "logs" / f"run-{time.strftime('%Y%m%d-%H%M%S')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "pipelines.definitions"]
    command += ["--select", selection, "--partition", product]
    command += ["--config-json", config] if config else []
    environment = {**os.environ, "DAGSTER_HOME": str(home / "dagster"), "PYTHONUNBUFFERED": "1"}
    failures: list[str] = []
    with (
        log.open("w") as sink,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as run,
    ):
        try:
            for text in progress(_kept(run.stdout or (), sink)):
                say(text)
                if text.startswith("x "):
                    failures.append(text[2:])
        except KeyboardInterrupt:
            run.wait()
            raise
    if run.returncode != 0:
        raise RunFailed(f"{failures[0] if failures else 'the run failed'} (log: {log})")


def progress(lines: Iterable[str]) -> Iterator[str]:
    """What a person wants to see of a run's log: steps done or failed with the reason, and the steps' own notes."""
    failed = ""
    noted: dict[str, str] = {}
    for raw in lines:
        line = _COLOUR.sub("", raw.rstrip())
        found = _LINE.search(line)
        if failed and line and not found and not line.startswith("dagster._core"):
            check = _CHECK.fullmatch(line)
            yield f"x {check['asset']}: {noted.get(check['asset'], check['check'])}" if check else f"x {failed}: {line}"
            failed = ""
        if found is None:
            continue
        step = found["step"].replace("__", "/")
        if found["event"] == "STEP_SUCCESS":
            yield f"+ {step}: {found['text'].rpartition(' in ')[2].rstrip('.')}"
        elif found["event"] == "STEP_FAILURE":
            failed = step
        elif found["event"] is None and found["level"] in _SHOWN and "were not executed" not in found["text"]:
            noted[step] = found["text"]
            yield f"  {step}: {found['text']}"


def _kept(lines: Iterable[str], sink: TextIO) -> Iterator[str]:
    for line in lines:
        sink.write(line)
        yield line
