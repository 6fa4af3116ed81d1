"""What a person sees of a run while it goes, and what is kept of it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.recipes.product import ROOT
from pipelines.stages.train import pace
from pipelines.stages.train.job import CurvePoint, RunFiles
from pipelines.stages.train.output import kept, tail
from pipelines.stages.train.pace import Meter, Pace, peak_memory
from pipelines.stages.train.progress import BarSink, FileSink, LineSink

POINT = CurvePoint(step=3, loss=0.51234, token_accuracy=0.75, grad_norm=1.5, learning_rate=0.001)
PACE = Pace(begun_at=0, tokens=900, tokens_per_second=120.4, memory_gb=1.25, eta_seconds=61.0)


def test_a_line_tells_every_number() -> None:
    stream = io.StringIO()
    LineSink("sft", stream).point(POINT, PACE, 6)
    for said in ("sft step 3/6", "loss 0.5123", "token accuracy 0.75", "tokens per second 120.4", "1:01 left"):
        assert said in stream.getvalue()


def test_a_terminal_gets_a_bar_with_the_newest_numbers() -> None:
    terminal = io.StringIO()
    bar = BarSink("sft", terminal)
    bar.point(CurvePoint(step=3, validation_loss=0.75), Pace(), 6)
    bar.point(POINT, PACE, 6)
    bar.end("done", "")
    shown = terminal.getvalue()
    for said in ("3/6", "loss 0.5123", "validation 0.75", "120 tokens/s", "00:01:01 left"):
        assert said in shown


def test_a_program_in_a_terminal_draws_and_its_log_has_plain_lines(tmp_path: Path) -> None:
    """The trainer's own sinks under a pseudo-terminal."""
    program = f"""
from pathlib import Path
from types import SimpleNamespace
from pipelines.stages.train import progress
from pipelines.stages.train.job import CurvePoint, RunFiles
from pipelines.stages.train.output import kept
from pipelines.stages.train import pace
from pipelines.stages.train.pace import Pace
files = RunFiles(Path({str(tmp_path)!r}))
with kept(files.log), progress.sinks(SimpleNamespace(run_dir=Path({str(tmp_path)!r}), stage="sft")) as sinks:
    print("resuming from step-2")
    for sink in sinks:
        sink.point(CurvePoint(step=3, loss=0.5), Pace(tokens_per_second=120.4), 6)
        sink.end("done", "")
"""
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment | {"COLUMNS": "120"}
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += (piece := os.read(ours, 4096))
        except OSError:  # the other end is closed
            break
        if not piece:
            break
    os.close(ours)
    assert child.wait() == 0, shown.decode()
    assert b"3/6" in shown
    assert b"120 tokens/s" in shown
    log = RunFiles(tmp_path).log.read_text()
    assert log.splitlines() == ["resuming from step-2", "sft step 3/6  loss 0.5  tokens per second 120.4"]
    assert json.loads(RunFiles(tmp_path).ended.read_text()) == {"outcome": "done", "reason": ""}


def test_the_log_keeps_what_is_printed_and_the_stack_of_a_crash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.txt"
    with kept(log):
        print("to stdout")
        print("to stderr", file=sys.stderr)
    assert tail(log) == "to stdout\nto stderr\n"
    assert capsys.readouterr() == ("to stdout\n", "to stderr\n")
    crash = "import os, sys; from pathlib import Path; from pipelines.stages.train.output import kept\n"
    crash += "with kept(Path(sys.argv[1])): os.abort()"
    assert subprocess.run([sys.executable, "-c", crash, str(log)], cwd=ROOT, capture_output=True).returncode == -6
    assert "Aborted" in tail(log)


def test_of_a_long_log_the_last_whole_lines_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("".join(f"line {number:04}\n" for number in range(2000)))
    end = tail(log).splitlines()
    assert end[-1] == "line 1999"
    assert all(len(line) == len("line 0000") for line in end)
    assert 300 < len(end) < 500
    assert tail(tmp_path / "none") == ""


def test_speed_is_of_training_alone_and_the_time_left_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 110.0, 130.0, 140.0])
    monkeypatch.setattr(pace, "monotonic", lambda: next(clock))
    meter = Meter()
    meter.begin(4)
    first = meter.after(5, 10, tokens=500)
    assert (first.tokens_per_second, first.eta_seconds, first.begun_at) == (50.0, 50.0, 4)
    evaluated = meter.after(5, 10, tokens=None)
    assert (evaluated.tokens, evaluated.tokens_per_second) == (None, None)
    second = meter.after(6, 10, tokens=1100)
    assert (second.tokens_per_second, second.eta_seconds) == (60.0, 80.0)


def test_memory_is_measured_in_bytes() -> None:
    before = peak_memory()
    held = bytearray(200_000_000)
    assert peak_memory() >= before
    assert 200_000_000 < peak_memory() < 50_000_000_000
    del held


def test_a_full_disk_does_not_hide_the_reason(tmp_path: Path) -> None:
    FileSink(RunFiles(tmp_path / "gone")).end("failed", "why")
