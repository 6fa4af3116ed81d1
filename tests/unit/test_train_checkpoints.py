"""Checkpoints are whole or do not count."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.stages.train.checkpoints import SEAL, is_whole, newest_whole, rotate, seal

FILES = {"model.safetensors": b"weights" * 50, "optimizer.pt": b"moments" * 30, "rng_state.pth": b"random"}


def _checkpoint(folder: Path, step: int) -> Path:
    work = folder / "work"
    work.mkdir(parents=True)
    for name, data in FILES.items():
        (work / name).write_bytes(data)
    seal(work, folder / "checkpoints" / f"step-{step}")
    return folder / "checkpoints" / f"step-{step}"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_is_seen_and_the_one_before_is_taken(tmp_path: Path, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    older, newer = _checkpoint(tmp_path / "run", 9), _checkpoint(tmp_path / "run", 10)
    victim = newer / data.draw(st.sampled_from([*FILES, SEAL]), label="file")
    content = victim.read_bytes()
    act = data.draw(st.sampled_from(["cut", "flip", "remove"]), label="damage")
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    if act == "cut":
        victim.write_bytes(content[:at])
    elif act == "flip":
        bit = 1 << data.draw(st.integers(0, 7), label="bit")
        victim.write_bytes(content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :])
    else:
        victim.unlink()
    assert newest_whole(newer.parent) == (older, [newer])


def test_a_file_that_was_added_makes_it_another(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, 1)
    assert is_whole(folder)
    (folder / "extra").write_bytes(b"")
    assert not is_whole(folder)


def test_a_folder_that_was_never_sealed_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "step-3").mkdir()
    (tmp_path / "step-3" / "optimizer.pt").write_bytes(b"x")
    assert newest_whole(tmp_path) == (None, [tmp_path / "step-3"])


@pytest.mark.parametrize(
    ("damaged", "left"), [(False, {"step-20", "step-30"}), (True, {"step-5", "step-20", "step-30"})]
)
def test_old_ones_go_only_when_the_newest_is_whole(tmp_path: Path, damaged: bool, left: set[str]) -> None:
    for step in (5, 20, 30):
        newest = _checkpoint(tmp_path, step)
    if damaged:
        (newest / "optimizer.pt").write_bytes(b"")
    rotate(newest.parent)
    assert {path.name for path in newest.parent.iterdir()} == left
