"""How a training process is started."""

from pathlib import Path
from typing import Protocol


class TrainerLauncher(Protocol):
    def launch(self, job_file: Path, run_dir: Path) -> None:
        """Run ``python -m pipelines.stages.train.entry JOB_FILE`` to its end. Raises `Unavailable` or `Refused` when
        it did not finish."""
        ...
