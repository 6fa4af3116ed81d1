"""An erasure that is killed at any moment is finished by another process."""

import random
import subprocess
import sys
import time

import pytest

from pipelines.recipes.product import ROOT
from tests.support.erasing import ErasingLine, erased_whole, events


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> ErasingLine:
    return ErasingLine(tmp_path_factory.mktemp("whole"))


def erasing(line: ErasingLine) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.erasing", str(line.folder), line.subject],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.drill
def test_killed_at_ten_random_moments(whole, tmp_path):
    """SIGKILL at moments spread over what an erasure takes; another process then finishes it."""
    first = whole.copied(tmp_path / "timed")
    process = erasing(first)
    began = time.monotonic()
    assert process.wait(60) == 0
    seconds = time.monotonic() - began
    process.stdout.close()
    draw = random.Random(118)
    reached = []
    for number in range(10):
        line = whole.copied(tmp_path / str(number))
        line.leave_behind()
        process = erasing(line)
        time.sleep(seconds * (number + draw.random()) / 10)
        process.kill()
        process.wait(60)
        process.stdout.close()
        reached.append(events(line)[-1])
        line.erase()
        erased_whole(line)
    print(f"an erasure took {seconds:.2f} s; last record at each kill: {', '.join(reached)}")
    assert len(set(reached)) > 1
