"""Checkpoints are whole or do not count, whatever store they lie in."""

import errno
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.digests import sha256_bytes
from data_contracts.errors import Refused
from pipelines.stages.train.checkpoints import FACTS, SEAL, Checkpoints, Facts, StoreLost

FILES = {"model.safetensors": b"weights" * 50, "optimizer.pt": b"moments" * 30, "rng_state.pth": b"random"}


def _put(data: bytes, handle: Any) -> None:
    handle.write(data)


def _write(checkpoints: Checkpoints, step: int, scheduled: bool = True, loss: float | None = None) -> None:
    facts = Facts(
        step=step,
        scheduled=scheduled,
        recipe=sha256_bytes(b"recipe"),
        validation_loss=loss,
        losses=(),
        trips=(),
        probes={},
    )
    files = FILES | {FACTS: facts.model_dump_json().encode()}
    checkpoints.write(step, {name: partial(_put, data) for name, data in files.items()})


@pytest.fixture(params=["", "file://", "memory://"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Checkpoints]:
    yield Checkpoints(f"{request.param}{tmp_path}/run")
    if request.param == "memory://":
        fsspec.filesystem("memory").store.clear()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_seen(tmp_path: Path, checkpoints: Checkpoints, data: st.DataObject) -> None:
    _write(checkpoints, 9)
    _write(checkpoints, 10)
    assert checkpoints.is_whole(10)
    victim = f"{checkpoints.root}/step-10/{data.draw(st.sampled_from([*FILES, FACTS, SEAL]), label='file')}"
    content = checkpoints.fs.cat_file(victim)
    act = data.draw(st.sampled_from(["cut", "flip", "remove"]), label="damage")
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    if act == "cut":
        checkpoints.fs.pipe_file(victim, content[:at])
    elif act == "flip":
        bit = 1 << data.draw(st.integers(0, 7), label="bit")
        checkpoints.fs.pipe_file(victim, content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    else:
        checkpoints.fs.rm_file(victim)
    assert not checkpoints.is_whole(10)
    assert not checkpoints.fetch(10, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert (checkpoints.steps(), checkpoints.is_whole(9)) == ([10, 9], True)


def test_what_was_written_is_what_is_fetched(tmp_path: Path, checkpoints: Checkpoints) -> None:
    _write(checkpoints, 3)
    assert checkpoints.fetch(3, tmp_path / "copy")
    found = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    assert {name: found[name] for name in FILES} == FILES
    assert found.keys() == {*FILES, FACTS}


def test_a_file_that_was_added_makes_it_another(checkpoints: Checkpoints) -> None:
    _write(checkpoints, 1)
    checkpoints.fs.pipe_file(f"{checkpoints.root}/step-1/extra", b"")
    assert not checkpoints.is_whole(1)


def test_half_of_an_upload_does_not_count(checkpoints: Checkpoints) -> None:
    checkpoints.fs.pipe_file(f"{checkpoints.root}/step-3/optimizer.pt", b"x")
    assert (checkpoints.steps(), checkpoints.is_whole(3)) == ([3], False)


def test_of_the_old_ones_the_best_validated_stays_and_one_before_the_last(checkpoints: Checkpoints) -> None:
    for step, loss in ((5, None), (10, 0.2), (15, None), (20, 0.3), (25, None), (30, 0.4)):
        _write(checkpoints, step, loss=loss)
        checkpoints.rotate()
    assert checkpoints.steps() == [30, 25, 10]


def test_one_that_was_taken_because_of_a_stop_takes_no_place_of_a_scheduled_one(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 15):
        _write(checkpoints, step, scheduled=step != 15)
    checkpoints.rotate()
    assert checkpoints.steps() == [15, 10, 5]
    checkpoints.back_to_scheduled()
    assert checkpoints.steps() == [10, 5]


def test_none_goes_while_the_newest_is_not_whole(checkpoints: Checkpoints) -> None:
    for step in (5, 10, 15, 20):
        _write(checkpoints, step)
    checkpoints.fs.pipe_file(f"{checkpoints.root}/step-20/optimizer.pt", b"")
    checkpoints.rotate()
    assert checkpoints.steps() == [20, 15, 10, 5]
    checkpoints.back_to_scheduled()
    assert checkpoints.steps() == [20, 15, 10, 5]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [(errno.ENOSPC, Refused, "step-10 was not written .* the disk is full"), (errno.EIO, StoreLost, "step-10 was not")],
)
def test_a_full_disk_or_a_lost_store_leaves_the_earlier_ones_and_no_half(
    checkpoints: Checkpoints, number: int, kind: type[Exception], words: str
) -> None:
    def breaks(handle: Any) -> None:
        handle.write(b"half")
        raise OSError(number, "as the store says it")

    _write(checkpoints, 5)
    with pytest.raises(kind, match=words):
        checkpoints.write(10, {"a": partial(_put, b"whole"), "optimizer.pt": breaks})
    assert (checkpoints.steps(), checkpoints.is_whole(5)) == ([5], True)
