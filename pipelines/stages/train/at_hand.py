"""What a trainer needs as plain files in its run directory, and only while it works."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from data_contracts.manifests import CheckpointManifest, DatasetManifest
from pipelines.stages.data.export import write_training_file
from pipelines.stages.protocols import Parts
from pipelines.stages.train.job import RunFiles, TrainJob


@contextmanager
def rows_at_hand(parts: Parts, job: TrainJob, data: DatasetManifest) -> Iterator[None]:
    """The job with its rows as files in its run directory. They lie on disk only meanwhile: erasure must not have to
    look for copies."""
    files = RunFiles(job.run_dir)
    files.rows.mkdir(parents=True, exist_ok=True)
    try:
        names = {
            "train": tuple(write_training_file(parts, data, "train", job.train_rows)),
            "validation": tuple(write_training_file(parts, data, "validation", job.validation_rows)),
        }
        files.job.write_text(job.model_copy(update={"row_names": names}).model_dump_json(indent=2))
        yield
    finally:
        shutil.rmtree(files.rows, ignore_errors=True)


@contextmanager
def parent_at_hand(parts: Parts, job: TrainJob, parent: CheckpointManifest | None) -> Iterator[None]:
    """The SFT weights, plain, in the run directory while the trainer works: it may do so on another machine, and go on
    there after who waits was killed."""
    if job.parent is None or parent is None:
        yield
        return
    try:
        if not job.parent.exists():
            part = job.parent.with_name("parent.part")
            shutil.rmtree(part, ignore_errors=True)
            with parts.store.opened(parent.weights) as folder:
                shutil.copytree(folder, part)
            part.rename(job.parent)
        yield
    finally:
        shutil.rmtree(job.parent, ignore_errors=True)
