"""End a training run early, by what it streams of its validation."""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from data_contracts.errors import AssayError, Unavailable
from pipelines.stages.train.job import RunFiles
from pipelines.stages.train.launcher import TrainerLauncher

_EVERY_S = 0.2


class Pruned(AssayError):
    """A run was told to stop, and did; the message says why."""


class PruningLauncher:
    """`TrainerLauncher` around another one. ``judge`` is told (step, validation loss) of all validations so far, again
    and again, from a thread of its own, and says why to stop, or nothing. The trainer stops as after a signal.

    Raises `Pruned` when it stopped for that, and what the other launcher raises. ``run_dir`` is where it ran.
    """

    run_dir: Path | None = None

    def __init__(self, launcher: TrainerLauncher, judge: Callable[[Mapping[int, float]], str]) -> None:
        self.launcher, self.judge = launcher, judge

    def launch(self, job_file: Path, run_dir: Path) -> None:
        self.run_dir, files = run_dir, RunFiles(run_dir)
        ended = threading.Event()
        reasons: list[str] = []
        watching = threading.Thread(target=self._watch, args=(files, ended, reasons))
        watching.start()
        try:
            self.launcher.launch(job_file, run_dir)
        except Unavailable as stopped:
            if reasons:
                raise Pruned(reasons[0]) from stopped
            raise
        finally:
            ended.set()
            watching.join()
            files.stop.unlink(missing_ok=True)

    def _watch(self, files: RunFiles, ended: threading.Event, reasons: list[str]) -> None:
        while not ended.wait(_EVERY_S):
            if not reasons and (reason := self.judge(validations(files.metrics))):
                reasons.append(reason)
            if reasons:
                files.stop.touch()  # again and again: a trainer that is about to start takes an old one away


def validations(metrics: Path) -> dict[int, float]:
    """Step -> validation loss after it, in the order of steps. A later line of the same step counts."""
    if not metrics.is_file():
        return {}
    text = metrics.read_text()
    points = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    found = {int(point["step"]): float(point["validation_loss"]) for point in points if "validation_loss" in point}
    return {step: found[step] for step in sorted(found) if step > 0}
