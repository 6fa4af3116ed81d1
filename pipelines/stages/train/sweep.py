"""Which of the evaluated steps becomes the result of a run, judged by the losses of single validation rows."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Literal

import fsspec

from data_contracts.errors import BadInput
from pipelines.stages.train import ranks
from pipelines.stages.train.job import CurvePoint

Rows = Mapping[int, Sequence[float]]
"""Step -> the loss of each validation row, in the order of the rows."""


def best_step(points: Sequence[CurvePoint], rows: Rows, select: Literal["minimum", "one_standard_error"]) -> int:
    """``minimum``: the trained step with the least validation loss, the earliest of equals.

    ``one_standard_error`` (Breiman et al., 1984, section 3.4.3; Hastie et al., Elements of Statistical Learning,
    section 7.10): the earliest trained step whose mean validation loss is within one standard error of the minimum.
    The error is that of the difference to the minimum, row by row. All steps are measured on the same rows, and rows
    differ by far more than steps do: the error of a mean alone is nearly all of it that scatter, which no comparison
    of two steps has, and by it a hardly trained step would do.
    """
    if select == "minimum":
        validated = [(p.validation_loss, p.step) for p in points if p.step and p.validation_loss is not None]
        return min(validated)[1]
    least = _least(rows)
    return next(
        step
        for step in sorted(rows)
        if step and fmean(rows[step]) - fmean(rows[least]) <= _error(rows[step], rows[least])
    )


def with_errors(points: Sequence[CurvePoint], rows: Rows) -> tuple[CurvePoint, ...]:
    """Each validated point with ``validation_error``: the standard error of the mean difference of its row losses from
    those of the step with the least mean."""
    if not rows:
        return tuple(points)
    least = _least(rows)
    return tuple(
        point.model_copy(update={"validation_error": _error(rows[point.step], rows[least])})
        if point.step in rows
        else point
        for point in points
    )


class RowLosses:
    """Collects the loss of each validation row. The trainer evaluates rows one by one then: a batch has one loss, and
    padding and the rows beside it no part in it."""

    def __init__(self, url: str) -> None:
        self.fs, self.root = fsspec.url_to_fs(url, auto_mkdir=True)
        self.losses: list[float] = []

    def watch(self, trainer: Any) -> None:
        """Hear of every loss that the trainer's evaluation computes, of all processes."""
        predict, gather = trainer.prediction_step, trainer.accelerator.gather_for_metrics

        def heard(*args: Any, **kwargs: Any) -> Any:
            outcome = predict(*args, **kwargs)
            self.losses += gather(outcome[0].detach().reshape(1)).tolist()
            return outcome

        trainer.prediction_step = heard

    def keep(self, step: int) -> None:
        """After an evaluation: its losses go to a file, so that a resumed run has them too."""
        if ranks.is_main():
            self.fs.pipe_file(self._file(step), json.dumps(self.losses).encode())
        self.losses = []

    def read(self, points: Sequence[CurvePoint]) -> dict[int, list[float]]:
        """By step. Raises `BadInput` for fewer than two rows, of which there is no standard error."""
        steps = [point.step for point in points if point.validation_loss is not None]
        found = {step: json.loads(self.fs.cat_file(self._file(step))) for step in steps}
        if min(map(len, found.values())) < 2:
            raise BadInput("select: one_standard_error needs two validation rows at least; raise eval_rows")
        return found

    def _file(self, step: int) -> str:
        return f"{self.root}/losses-{step}.json"


def _least(rows: Rows) -> int:
    return min((fmean(losses), step) for step, losses in rows.items() if step)[1]


def _error(losses: Sequence[float], least: Sequence[float]) -> float:
    differences = [one - other for one, other in zip(losses, least, strict=True)]
    return stdev(differences) / math.sqrt(len(differences))
