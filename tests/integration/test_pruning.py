"""The real trainer under a judge: it is ended early as by a signal, and the run can still be finished later."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from data_contracts.errors import Refused, Unavailable
from pipelines.stages.train.checkpoints import Checkpoints
from pipelines.stages.train.job import STOPPED, RunFiles
from pipelines.stages.train.pruning import Pruned, PruningLauncher
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, finish
from tests.support.training import make_job, make_recipe


class Forked:
    """A `TrainerLauncher` over the fork server."""

    def launch(self, job_file: Path, run_dir: Path) -> None:
        code = Trainer(job_file).wait()
        if code == STOPPED:
            raise Unavailable("stopped")
        if code != 0:
            raise Refused(f"code {code}")


def test_a_hopeless_run_ends_with_a_whole_checkpoint_and_may_go_on_later(tmp_path: Path) -> None:
    recipe = make_recipe(sft={"steps": 99, "eval_every": 3, "checkpoint_every": 99})
    job = make_job(tmp_path / "run", make_tiny_base(tmp_path / "tiny"), recipe)
    files = RunFiles(tmp_path / "run")

    def judge(validations: Mapping[int, float]) -> str:
        return "enough" if validations else ""

    with pytest.raises(Pruned, match="enough"):
        PruningLauncher(Forked(), judge).launch(job, tmp_path / "run")
    checkpoints = Checkpoints(str(files.checkpoints))
    assert [checkpoints.is_whole(step) for step in checkpoints.steps()] == [True]
    assert not files.stop.exists()
    last = json.loads(files.metrics.read_text().splitlines()[-1])["step"]
    assert 3 <= last < 99

    # A stop that nobody is waiting for any more, as a search that was killed leaves it, holds no other run up.
    files.stop.touch()
    finish(job)
    assert f"resuming from step-{last}" in (tmp_path / "run" / "trainer.log").read_text()


def test_a_run_that_fails_by_itself_is_not_told_as_ended_early(tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", make_tiny_base(tmp_path / "tiny"), make_recipe(max_length=16))
    with pytest.raises(Refused, match="code 1"):
        PruningLauncher(Forked(), lambda validations: "").launch(job, tmp_path / "run")
