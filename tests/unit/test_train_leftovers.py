"""Erasure reaches what unfinished runs keep, in run directories and in the store of checkpoints."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from data_contracts.digests import Digest
from pipelines.stages.train.job import TrainJob
from pipelines.stages.train.leftovers import claim_store, forget_runs, forget_store, is_claimed, runs_with
from tests.support.training import make_job, make_recipe

STORE = "memory://checkpoints"


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def row(tmp_path: Path) -> Digest:
    """A row of a run that lies in a run directory and in the store; another run lies beside it in the store."""
    mine = make_job(tmp_path / "training" / "mine", tmp_path, make_recipe())
    theirs = make_job(tmp_path / "elsewhere", tmp_path, make_recipe(), parent=tmp_path)
    for name, job in (("mine", mine), ("theirs", theirs)):
        claim_store(f"{STORE}/{name}", job)
        fsspec.filesystem("memory").pipe_file(f"/checkpoints/{name}/checkpoints/step-2/optimizer.pt", b"x")
    return TrainJob.model_validate_json(mine.read_bytes()).row_names["train"][0]


def test_the_runs_of_a_row_go_and_no_other(tmp_path: Path, row: Digest) -> None:
    training = tmp_path / "training"
    assert runs_with(training, STORE, [row]) == [str(training / "mine"), f"{STORE}/mine"]
    forget_runs(lambda: runs_with(training, STORE, [row]))
    assert runs_with(training, STORE, [row]) == []
    assert not (training / "mine").exists()
    assert (is_claimed(f"{STORE}/mine"), is_claimed(f"{STORE}/theirs")) == (False, True)


def test_what_does_not_say_whose_it_is_goes_too(tmp_path: Path, row: Digest) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/checkpoints/lost/checkpoints/step-2/optimizer.pt", b"x")
    assert f"{STORE}/lost" in runs_with(tmp_path / "training", STORE, [row])
    forget_runs(lambda: runs_with(tmp_path / "training", STORE, [row]))
    assert {path.split("/")[2] for path in fs.find("/checkpoints")} == {"theirs"}


def test_without_a_store_there_is_nothing_to_reach(tmp_path: Path, row: Digest) -> None:
    forget_store("")
    assert runs_with(tmp_path / "training", "", [row]) == [str(tmp_path / "training" / "mine")]
