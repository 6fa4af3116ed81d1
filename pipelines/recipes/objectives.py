"""The sections of a recipe, one an objective: what is learned from which rows, and how many steps of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from data_contracts.frozen import Frozen

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
SMOOTHED: frozenset[str] = frozenset({"robust", "exo_pair"})

Reward = Literal["json_valid", "tool_offered", "exact"]
"""What `grpo` pays an answer for; see `pipelines.stages.train.rewards`."""


class Schedule(Frozen):
    """One run of the optimizer over ``steps`` steps of ``batch_size`` * ``accumulate`` rows."""

    learning_rate: float = Field(gt=0)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulate: int = Field(ge=1)
    warmup_steps: int = Field(ge=0)
    scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"]
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    checkpoint_every: int = Field(ge=1)
    eval_every: int = Field(ge=1)
    eval_rows: int = Field(ge=1)
    select: Literal["minimum", "one_standard_error"] = "minimum"
    """Which evaluated step is kept: that of the least validation loss, or the earliest that is within one standard
    error of it, for which rows are evaluated one by one."""
    patience: int | None = Field(default=None, ge=1)
    """Early stopping: end after this many validations in a row without a new least validation loss."""

    @model_validator(mode="after")
    def _ends_with_an_evaluation(self) -> Self:
        if self.steps % self.eval_every:
            raise ValueError(f"eval_every {self.eval_every} must divide steps {self.steps}: the last step is evaluated")
        return self

    @model_validator(mode="after")
    def _patience_can_run_out(self) -> Self:
        if self.patience is not None and self.patience >= self.steps // self.eval_every:
            raise ValueError(
                f"patience {self.patience} never runs out in {self.steps // self.eval_every} validations: "
                "lower it or eval_every"
            )
        return self

    @property
    def rows(self) -> int:
        """Rows that the run sees."""
        return self.steps * self.batch_size * self.accumulate


class Sft(Frozen):
    """Supervised fine-tuning: the next token of conversations."""

    schedule: Schedule
    packing: bool = False
    """Fill each row of the batch with whole conversations up to ``max_length``; attention stays inside each."""
    assistant_only_loss: bool = True
    """Learn the assistant's words only; else every token of the conversation."""
    neftune_alpha: float | None = Field(default=None, gt=0)
    """Uniform noise on the embeddings, alpha / sqrt(length * width) (Jain et al., 2023, arXiv:2310.05914, eq. 1)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the label that is spread evenly over the vocabulary (Szegedy et al., 2015, arXiv:1512.00567, sec. 7)."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of KL(base || model) at the learned tokens: learning without forgetting (Li and Hoiem, 2016,
    arXiv:1606.09282). The base is the frozen model under the adapter; for ``full`` a second copy in memory."""

    @model_validator(mode="after")
    def _noise_knows_the_length(self) -> Self:
        if self.packing and self.neftune_alpha is not None:
            raise ValueError(
                "neftune_alpha scales its noise by the length of a row, which packing hides: drop one of the two"
            )
        return self


class Preference(Frozen):
    """DPO (Rafailov et al., 2023, arXiv:2305.18290) and its relatives; several loss types are summed."""

    loss_type: tuple[LossType, ...] = Field(min_length=1)
    beta: float = Field(gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    schedule: Schedule

    @model_validator(mode="after")
    def _smoothing_acts(self) -> Self:
        if bool(SMOOTHED & set(self.loss_type)) != (self.label_smoothing > 0):
            raise ValueError(f"label_smoothing is for the loss types {sorted(SMOOTHED)}, which need it, and no other")
        return self


class Kto(Frozen):
    """Kahneman-Tversky optimization (Ethayarajh et al., 2024, arXiv:2402.01306): each side of a pair is a row of its
    own, an answer that is wanted or one that is not. ``batch_size`` counts answers."""

    beta: float = Field(gt=0)
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)
    schedule: Schedule

    @model_validator(mode="after")
    def _has_neighbours(self) -> Self:
        if self.schedule.batch_size < 2:
            raise ValueError(
                "schedule.batch_size must be 2 or more: the KL is estimated from the batch's other answers"
            )
        return self


class RewardModel(Frozen):
    """A model that scores answers (Bradley-Terry on pairs). It is trained and kept; it is never served."""

    center: float = Field(default=0.0, ge=0)
    """Weight of (chosen + rejected)^2, which holds scores around zero (Eisenstein et al., 2023, arXiv:2312.09244)."""
    schedule: Schedule


class Grpo(Frozen):
    """Online reinforcement learning (Shao et al., 2024, arXiv:2402.03300): the model answers the prompts of the
    conversations ``generations`` times each, and learns from how its answers' rewards differ. ``batch_size`` counts
    answers."""

    rewards: dict[Reward, float] = Field(min_length=1)
    generations: int = Field(ge=2)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=1.0, gt=0)
    beta: float = Field(default=0.0, ge=0)
    """Weight of the KL to the SFT model."""
    schedule: Schedule

    @model_validator(mode="after")
    def _rewards_are_shares(self) -> Self:
        if min(self.rewards.values()) <= 0 or abs(sum(self.rewards.values()) - 1) > 1e-6:
            raise ValueError("rewards: weights must be above 0 and sum to 1, so that a reward lies in 0..1")
        return self

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        answers = self.schedule.batch_size * self.schedule.accumulate
        if answers % self.generations:
            raise ValueError(
                f"generations {self.generations} must divide schedule.batch_size * accumulate = {answers}: a step "
                "sees whole groups of answers"
            )
        return self


class Distill(Frozen):
    """On-policy distillation (Agarwal et al., 2023, arXiv:2306.13649): the student answers the prompts of the
    conversations and learns the teacher's distribution of each next token. Both must share one vocabulary."""

    teacher: str = Field(min_length=1)
    """``package:NAME``, a folder, or a hub id, as `ASSAY_BASE_MODEL`."""
    divergence: float = Field(ge=0, le=1)
    """Generalized Jensen-Shannon: 0 is KL(teacher || student), 1 is KL(student || teacher)."""
    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=1.0, gt=0)
    """Of the student's sampling and of both distributions."""
    schedule: Schedule


Section = Sft | Preference | Kto | RewardModel | Grpo | Distill
