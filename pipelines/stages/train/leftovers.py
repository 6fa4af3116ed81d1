"""What unfinished training runs keep (exported rows, checkpoints, weights), on disk and in the store of checkpoints,
and how erasure takes it away."""

import json
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fsspec

from data_contracts.digests import Digest
from data_contracts.errors import Unavailable
from pipelines.stages.train.checkpoints import StoreLost
from pipelines.stages.train.job import RunFiles

Job = dict[str, Any]
_TRIES = 50
_CLAIM = "job.json"
"""Says in the store whose the checkpoints beside it are: the job file, which names its rows."""


def runs_with(training: Path, store: str, rows: Collection[Digest]) -> list[str]:
    """Run directories below ``training``, and folders below the URL ``store``, of runs that learn from one of these
    rows, or that hold something and do not say of what. Raises `StoreLost`."""
    return [run for run, job in _runs(training, store) if job is None or not _names(job).isdisjoint(rows)]


def runs_of(training: Path, store: str, products: Collection[str]) -> list[str]:
    """The same of runs of these products, as they say themselves."""
    return [run for run, job in _runs(training, store) if job is not None and job.get("product") in products]


def forget_runs(find: Callable[[], list[str]]) -> None:
    """Delete the runs that are found. One that is under way ends with an error at its next step. Raises `Unavailable`
    when one keeps writing."""
    for _ in range(_TRIES):
        found = find()
        if not found:
            return
        for run in found:
            if "://" in run:
                forget_store(run)
            else:
                shutil.rmtree(run, ignore_errors=True)  # a trainer may write while it is deleted: then once more
        time.sleep(0.1)
    raise Unavailable(f"training in {found[0]} goes on writing: end it, then do the same again")


def store_of(store: str, run_dir: Path) -> str:
    """A run's folder below the URL ``store``; nothing where checkpoints lie in the run directory."""
    return store and f"{store.rstrip('/')}/{run_dir.name}"


def claim_store(store: str, job_file: Path) -> None:
    """Lay the job file into a run's folder in the store, before anything else is written there."""
    if store:
        with _reaching(store):
            fs, root = fsspec.url_to_fs(store, auto_mkdir=True)
            fs.pipe_file(f"{root}/{_CLAIM}", job_file.read_bytes())


def is_claimed(store: str) -> bool:
    """Whether a run's folder in the store is still its own: erasure takes it away."""
    with _reaching(store):
        fs, root = fsspec.url_to_fs(store)
        return bool(fs.exists(f"{root}/{_CLAIM}"))


def forget_store(store: str) -> None:
    """Delete a run's folder in the store; the claim goes last, so that a deletion cut short is found again."""
    if not store:
        return
    with _reaching(store):
        fs, root = fsspec.url_to_fs(store)
        fs.invalidate_cache()
        for path in fs.find(root):
            if path != f"{root}/{_CLAIM}":
                fs.rm_file(path)
        if fs.exists(root):
            fs.rm(root, recursive=True)


def _runs(training: Path, store: str) -> Iterator[tuple[str, Job | None]]:
    """Each run that keeps something, on disk and in the store, with its job; nothing where that cannot be read."""
    for run in sorted(training.glob("*")):
        files = RunFiles(run)
        job = _job(files.job.read_bytes) if files.job.exists() else None
        if job is not None or files.rows.exists():
            yield str(run), job
    with _reaching(store):
        yield from _claims(store)


def _claims(store: str) -> Iterator[tuple[str, Job | None]]:
    if not store:
        return
    fs, root = fsspec.url_to_fs(store)
    fs.invalidate_cache()
    for folder in sorted(fs.ls(root, detail=False)) if fs.exists(root) else ():
        job = _job(partial(fs.cat_file, f"{folder}/{_CLAIM}"))
        if job is not None or fs.find(folder):
            yield f"{store.rstrip('/')}/{Path(folder).name}", job


def _job(read: Callable[[], bytes]) -> Job | None:
    try:
        job: Job = json.loads(read())
        _names(job)
        return job
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _names(job: Job) -> set[Digest]:
    return {name for split in job["row_names"].values() for name in split}


@contextmanager
def _reaching(store: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreLost(f"the store of checkpoints {store} cannot be reached: {error}") from error
