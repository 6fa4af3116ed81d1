"""Tell how training goes: a JSON-lines file, a line on stdout, MLflow when it is configured, Dagster when it launched
the process. Numbers only: no row text leaves the trainer."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipelines.stages.train.job import CurvePoint, RunFiles, TrainJob

_DAGSTER_EVERY = 5


class Sink(Protocol):
    def point(self, point: CurvePoint, steps: int) -> None: ...


class FileSink:
    """Appends each point; a resumed run repeats the steps after its checkpoint, the later line counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def point(self, point: CurvePoint, steps: int) -> None:
        with self.path.open("a") as handle:
            handle.write(json.dumps(_numbers(point)) + "\n")


class StdoutSink:
    def __init__(self, label: str) -> None:
        self.label = label

    def point(self, point: CurvePoint, steps: int) -> None:
        print(line(self.label, point, steps), flush=True)


class DagsterSink:
    """Every point as a message; a line in the Dagster run's log every few steps and at each validation."""

    def __init__(self, pipes: Any, label: str) -> None:
        self.pipes, self.label = pipes, label

    def point(self, point: CurvePoint, steps: int) -> None:
        self.pipes.report_custom_message(dict(_numbers(point)))
        if point.validation_loss is not None or point.step % _DAGSTER_EVERY == 0:
            self.pipes.log.info(line(self.label, point, steps))


class MlflowSink:
    """One MLflow run a training run, found again on resume. An outage costs the curve in MLflow, not the training."""

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

    def point(self, point: CurvePoint, steps: int) -> None:
        with self._tolerated(f"step {point.step}"):
            for name, value in _numbers(point).items():
                if name != "step" and self.run is not None:
                    self.client.log_metric(self.run, name, value, step=point.step)

    def close(self, ok: bool) -> None:
        with self._tolerated("the end"):
            if self.run is not None:
                self.client.set_terminated(self.run, "FINISHED" if ok else "FAILED")

    @contextmanager
    def _tolerated(self, what: str) -> Iterator[None]:
        try:
            yield
        except self.outage as error:
            print(f"mlflow did not record {what}: {error}", flush=True)


def line(label: str, point: CurvePoint, steps: int) -> str:
    parts = [f"{label} step {point.step}/{steps}"]
    parts += [f"{name.replace('_', ' ')} {value:.4g}" for name, value in _numbers(point).items() if name != "step"]
    return "  ".join(parts)


def _numbers(point: CurvePoint) -> Mapping[str, float]:
    return point.model_dump(exclude_none=True)


@contextmanager
def sinks(job: TrainJob) -> Iterator[list[Sink]]:
    """All the places that hear of this run."""
    files = RunFiles(job.run_dir)
    found: list[Sink] = [FileSink(files.metrics), StdoutSink(job.stage)]
    mlflow = MlflowSink(job, job.run_dir / "mlflow-run") if os.environ.get("MLFLOW_TRACKING_URI") else None
    if mlflow is not None:
        found.append(mlflow)
    with _dagster(job.stage) as dagster:
        done = False
        try:
            yield [*found, *dagster]
            done = True
        finally:
            if mlflow is not None:
                mlflow.close(done)


@contextmanager
def _dagster(label: str) -> Iterator[list[Sink]]:
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield []
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield [DagsterSink(pipes, label)]
