"""What a dossier tells besides the measurements: noise floors, the checkpoint sweep, what the training
cost, contamination hits."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from data_contracts.digests import Digest
from data_contracts.manifests import CheckpointManifest, DatasetManifest
from data_contracts.runs import RunRecord
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import GateVerdict
from evals.policy import GatePolicy
from pipelines.stages.protocols import Parts


class Candidate(NamedTuple):
    """A step at which the validation rows were asked. ``error`` is the standard error of the difference to the least
    loss, where rows were evaluated one by one."""

    step: int
    loss: float
    error: float | None
    accuracy: float | None
    chosen: bool


class Cost(NamedTuple):
    """All recorded starts of one stage's training, added up. ``money`` is in the currency of the configured rate."""

    stage: str
    starts: int
    seconds: float
    tokens: int
    tokens_per_second: float | None
    peak_memory_gb: float | None
    money: float | None


class Contamination(NamedTuple):
    """``protected`` evaluation items were looked for; ``hits`` are (row's name, why) of the rows that went out."""

    protected: int
    hits: tuple[tuple[Digest, str], ...]


def sweep(store: ArtifactStore, checkpoint: CheckpointManifest) -> list[Candidate]:
    """The evaluated steps of a run; empty where nothing was validated on the way."""
    points: list[dict[str, Any]] = store.get_json(checkpoint.curve)
    return [
        Candidate(
            step=point["step"],
            loss=point["validation_loss"],
            error=point.get("validation_error"),
            accuracy=point.get("validation_accuracy"),
            chosen=point["step"] == checkpoint.step,
        )
        for point in points
        if point.get("validation_loss") is not None
    ]


def costs(parts: Parts, steps: Iterable[CheckpointManifest]) -> list[Cost]:
    """Of the stages whose runs are on record here."""
    runs = [(step.stage, parts.runs.find(action_key=step.action_key)) for step in steps]
    return [_cost(stage, found) for stage, found in runs if found]


def _cost(stage: str, runs: Sequence[RunRecord]) -> Cost:
    """``runs`` are newest first."""
    known = [run.cost for run in runs if run.cost is not None]
    memory = [run.peak_memory_gb for run in runs if run.peak_memory_gb is not None]
    return Cost(
        stage=stage,
        starts=len(runs),
        seconds=sum(run.seconds for run in runs),
        tokens=sum(run.tokens for run in runs),
        tokens_per_second=runs[0].tokens_per_second,
        peak_memory_gb=max(memory, default=None),
        money=sum(known) if len(known) == len(runs) else None,
    )


def contamination(parts: Parts, sets: Iterable[DatasetManifest]) -> Contamination | None:
    """Rows that went out because they hold an evaluation item, by name; nothing where no step looked for any."""
    looked = [each for each in sets if "protected_items" in each.facts]
    if not looked:
        return None
    hits = [
        (row, reason)
        for each in looked
        if each.counts.dropped.get("contaminated")
        for row, _, reason, _ in parts.datasets.read_quarantine(each.action_key)
    ]
    protected: list[Any] = [each.facts["protected_items"] for each in looked]
    return Contamination(max(protected), tuple(hits))


def noise_told(policy: GatePolicy, verdict: GateVerdict) -> dict[str, str]:
    """Criterion -> the noise floor that it was held to, in words; of those that compare with a baseline."""
    compared = {each.name for each in policy.criteria if each.compares}
    return {
        each.name: "not measured" if each.noise is None else f"{each.noise:.3f}"
        for each in verdict.criteria
        if each.name in compared
    }
