"""Tell how training goes: a JSON-lines file, the terminal, MLflow when it is configured, Dagster when it launched the
process. Numbers only: no row text leaves the trainer."""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

from data_contracts.runs import Outcome
from pipelines.stages.train import ranks
from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob
from pipelines.stages.train.pace import Pace
from pipelines.stages.train.redact import described

_DAGSTER_EVERY = 5


class Sink(Protocol):
    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None: ...
    def end(self, outcome: Outcome, reason: str) -> None:
        """The run is over, or stopped for now. Said once, unless it is killed."""
        ...


class FileSink:
    """Appends each point; a resumed run repeats the steps after its checkpoint, the later line counts."""

    def __init__(self, files: RunFiles) -> None:
        self.files = files

    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None:
        with self.files.metrics.open("a") as handle:
            handle.write(json.dumps(_numbers(point, pace)) + "\n")

    def end(self, outcome: Outcome, reason: str) -> None:
        with suppress(OSError):  # a full disk, or a run that erasure took away, must not hide the reason
            self.files.ended.write_text(json.dumps({"outcome": outcome, "reason": reason}))


class LineSink:
    """A line a point; of the end the program tells itself."""

    def __init__(self, label: str, stream: TextIO) -> None:
        self.label, self.stream = label, stream

    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None:
        print(line(self.label, point, pace, steps), file=self.stream, flush=True)

    def end(self, outcome: Outcome, reason: str) -> None:
        self.stream.flush()


class BarSink:
    """A progress bar with the newest numbers, for a terminal."""

    def __init__(self, label: str, terminal: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
        # What is printed goes its own way, into the log too, and mostly before the first step.
        console = Console(file=terminal, force_terminal=True)
        self.bar = Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
        self.task = self.bar.add_task(label, total=None, said="")
        self.validation = ""

    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None:
        if point.validation_loss is not None:
            self.validation = f"validation {point.validation_loss:.4g}"
        loss = "" if point.loss is None else f"loss {point.loss:.4g}"
        speed = "" if pace.tokens_per_second is None else f"{pace.tokens_per_second:.0f} tokens/s"
        memory = "" if pace.memory_gb is None else f"{pace.memory_gb:.1f} GB"
        left = "" if pace.eta_seconds is None else f"{time.strftime('%H:%M:%S', time.gmtime(pace.eta_seconds))} left"
        said = "  ".join(filter(None, (loss, self.validation, speed, memory, left)))
        self.bar.start()
        self.bar.update(self.task, completed=point.step, total=steps, said=said, refresh=True)

    def end(self, outcome: Outcome, reason: str) -> None:
        self.bar.stop()


class DagsterSink:
    """Every point as a message; a line in the Dagster run's log every few steps and at each validation."""

    def __init__(self, pipes: Any, label: str) -> None:
        self.pipes, self.label = pipes, label

    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None:
        self.pipes.report_custom_message(dict(_numbers(point, pace)))
        if point.validation_loss is not None or point.step % _DAGSTER_EVERY == 0:
            self.pipes.log.info(line(self.label, point, pace, steps))

    def end(self, outcome: Outcome, reason: str) -> None:
        self.pipes.log.info(f"{self.label} {outcome}{': ' if reason else ''}{reason}")


class MlflowSink:
    """One MLflow run a training run, found again on resume. An outage costs the curve in MLflow, not the training.

    Tags ``assay.outcome`` and ``assay.reason`` say how it ended; a killed one stays ``running``.
    """

    def __init__(self, job: TrainJob, note: Path) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self.client: Any = MlflowClient()
        self.outage: type[Exception] = MlflowException
        self.run: str | None = note.read_text() if note.is_file() else None
        with self._tolerated("the run"):
            if self.run is None:
                found = self.client.get_experiment_by_name(job.product)
                experiment = found.experiment_id if found else self.client.create_experiment(job.product)
                tags = {"assay.stage": job.stage, "assay.base": job.base_digest, "assay.recipe": job.recipe.digest}
                self.run = str(self.client.create_run(experiment, run_name=job.stage, tags=tags).info.run_id)
                note.write_text(self.run)
            else:
                self.client.update_run(self.run, status="RUNNING")
            self._tag("running", "")

    def point(self, point: CurvePoint, pace: Pace, steps: int) -> None:
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        numbers = _numbers(point, pace)
        with self._tolerated(f"step {point.step}"):
            if self.run is not None:
                metrics = [Metric(name, value, at, point.step) for name, value in numbers.items() if name != "step"]
                self.client.log_batch(self.run, metrics=metrics)

    def end(self, outcome: Outcome, reason: str) -> None:
        with self._tolerated("the end"):
            if self.run is not None:
                self._tag(outcome, reason)
                status = {"done": "FINISHED", "failed": "FAILED"}.get(outcome, "KILLED")
                self.client.set_terminated(self.run, status)

    def _tag(self, outcome: Outcome, reason: str) -> None:
        self.client.set_tag(self.run, "assay.outcome", outcome)
        self.client.set_tag(self.run, "assay.reason", reason[:1000])

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        try:
            yield
        except self.outage as error:
            print(f"mlflow did not record {what}: {error}", flush=True)


_UNTOLD = frozenset({"step", "begun_at", "tokens", "eta_seconds"})


def line(label: str, point: CurvePoint, pace: Pace, steps: int) -> str:
    """What a person follows; the files have all of it."""
    parts = [f"{label} step {point.step}/{steps}"]
    shown = {name: value for name, value in _numbers(point, pace).items() if name not in _UNTOLD}
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in shown.items()]
    if pace.eta_seconds is not None:
        minutes, seconds = divmod(round(pace.eta_seconds), 60)
        parts.append(f"{minutes}:{seconds:02} left")
    return "  ".join(parts)


def _numbers(point: CurvePoint, pace: Pace) -> Mapping[str, float]:
    return point.model_dump(exclude_none=True) | pace.model_dump(exclude_none=True)


@contextmanager
def sinks(job: TrainJob) -> Iterator[list[Sink]]:
    """All the places that hear of this run, from rank 0. They are told of a failure here, of another end by the
    program."""
    if not ranks.is_main():
        yield []
        return
    files = RunFiles(job.run_dir)
    found: list[Sink] = [FileSink(files)]
    if os.environ.get("MLFLOW_TRACKING_URI"):
        found.append(MlflowSink(job, job.run_dir / "mlflow-run"))
    with _dagster(job.stage) as dagster, _shown(job, files) as shown:
        found += [*shown, *dagster]
        try:
            yield found
        except BaseException as error:
            for sink in found:
                sink.end("failed", f"{type(error).__name__}: {described(error, files)}")
            raise


@contextmanager
def _shown(job: TrainJob, files: RunFiles) -> Iterator[list[Sink]]:
    """A bar in a terminal, with the lines in the log; else lines to both."""
    terminal = sys.__stdout__
    if terminal is None or not terminal.isatty():
        yield [LineSink(job.stage, sys.stdout)]
        return
    with files.log.open("a", buffering=1) as log:
        yield [LineSink(job.stage, log), BarSink(job.stage, terminal)]


@contextmanager
def _dagster(label: str) -> Iterator[list[Sink]]:
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield []
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield [DagsterSink(pipes, label)]
