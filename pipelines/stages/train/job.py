"""What a training process is given and what it leaves: plain files in its run directory."""

from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.manifests import Stage
from pipelines.recipes.recipe import Action, Recipe

STOPPED = 75
"""Exit code of a run that was told to stop and left a checkpoint to resume from (EX_TEMPFAIL of sysexits.h)."""


class TrainJob(Frozen):
    """One training run. Row files are JSON lines of `ChatExample` (sft, grpo, distill) or `PreferencePair` (preference,
    kto, reward), and ``row_names`` names their rows, in that order, for a split.

    ``parent`` is the folder of the SFT weights that a later stage starts from and compares itself with; ``teacher`` is
    the folder of the model that a distilled one learns from. ``store`` is the fsspec URL below which checkpoints and
    validated weights are kept, the run directory when empty.
    """

    product: str
    stage: Stage
    recipe: Recipe
    base: Path
    base_digest: Digest
    template: Path
    train_rows: Path
    validation_rows: Path
    row_names: dict[Literal["train", "validation"], tuple[Digest, ...]]
    parent: Path | None
    teacher: Path | None = None
    run_dir: Path
    store: str = ""
    probe_suites: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _says_what_is_computed(self) -> Self:
        if self.recipe.precision == "auto":
            raise ValueError("a job needs a resolved recipe: precision bf16 or fp32, not auto")
        return self

    @property
    def kept_at(self) -> str:
        """Where checkpoints and validated weights lie: a URL or a path."""
        return self.store or str(self.run_dir)


class CurvePoint(Frozen):
    """Training and validation at a step; ``None`` where it was not measured. ``token_accuracy``: the share of labelled
    tokens that were the likeliest. ``validation_error``: see `sweep.with_errors`. ``reward`` is the mean of what the
    model's own answers earned, for `grpo`; its validation loss is what they missed, 1 - reward."""

    step: int
    loss: float | None = None
    token_accuracy: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    reward: float | None = None
    validation_error: float | None = None


class Trip(Frozen):
    """A guard that tripped at a step, before its update, and what was done."""

    step: int
    guard: str
    action: Action
    reason: str


class TrainResult(Frozen):
    """``step`` is the one that the sweep chose; its weights lie in ``weights/`` of the run directory.
    ``trips``: the steps that were dropped, and the roll backs."""

    step: int
    metrics: dict[str, float]
    curve: tuple[CurvePoint, ...]
    environment: dict[str, str]
    trips: tuple[Trip, ...] = ()


class RunFiles:
    """Where things lie in a run directory."""

    def __init__(self, run_dir: Path) -> None:
        self.job = run_dir / "job.json"
        self.lock = run_dir / "lock"
        self.metrics = run_dir / "metrics.jsonl"
        self.result = run_dir / "result.json"
        self.failed = run_dir / "failed.json"
        self.ended = run_dir / "ended.json"
        self.environment = run_dir / "environment.json"
        self.log = run_dir / "log.txt"
        self.stop = run_dir / "stop"  # who makes it asks the trainer to stop, as a signal does
        self.rows = run_dir / "rows"
        self.work = run_dir / "work"
        self.checkpoints = run_dir / "checkpoints"
        self.sweep = run_dir / "sweep"
        self.weights = run_dir / "weights"
        self.parent = run_dir / "parent"
