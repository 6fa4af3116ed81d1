"""Manifests: what a thing is made of, by digest. They hold no time, host, run id or row text.

A manifest is written last, so that its existence means that the rest is whole.
"""

from typing import Literal

from pydantic import Field, JsonValue

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

Method = Literal["full", "lora", "qlora", "dora"]
Stage = Literal["sft", "preference", "kto", "reward", "grpo", "distill"]
"""What a training run learns by: SFT, or the objective that follows it."""


class Counts(Frozen):
    """Rows in = rows out + dropped. ``dropped`` maps reason -> rows, each of which lies in quarantine."""

    rows_in: int = Field(ge=0)
    rows_out: int = Field(ge=0)
    dropped: dict[str, int] = {}

    def balanced(self) -> bool:
        return self.rows_in == self.rows_out + sum(self.dropped.values())


class SourceRef(Frozen):
    """A source as it was read: its address in the product file, the digest of its bytes, its contract."""

    url: str
    content: Digest
    contract: Digest


class DatasetManifest(Frozen):
    """A data set of one stage. ``root`` is the Merkle root of its rows' names; ``parts`` the roots of its splits."""

    kind: Literal["dataset"] = "dataset"
    product: str
    stage: str
    root: Digest
    counts: Counts
    inputs: tuple[Digest, ...] = ()
    sources: tuple[SourceRef, ...] = ()
    policy: Digest | None = None
    parts: dict[str, Digest] = {}
    synthetic_share: float = Field(ge=0, le=1)
    facts: dict[str, JsonValue] = {}
    action_key: Digest


class BaseManifest(Frozen):
    """A base model: weights and tokenizer as one tree. The chat template is not part of it."""

    kind: Literal["base"] = "base"
    name: str
    source: str
    licence: str
    tree: Digest
    parameters: int


class CheckpointManifest(Frozen):
    """What a training run left: an adapter (or, for ``method: full``, whole weights) and all that it was made from.

    ``weights`` names a tree: ``adapter_model.safetensors`` with ``adapter_config.json``, or for ``full`` a whole model
    folder (weights, tokenizer, configuration) as a base has. ``curve`` names a blob of the run's losses by step,
    ``environment`` one of the versions it ran with, ``teacher`` the manifest of the model that was distilled.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    product: str
    stage: Stage
    method: Method
    base: Digest
    template: Digest
    recipe: Digest
    datasets: tuple[Digest, ...]
    parent: Digest | None = None
    teacher: Digest | None = None
    step: int
    weights: Digest
    metrics: dict[str, float] = {}
    curve: Digest
    environment: Digest
    action_key: Digest


class ModelManifest(Frozen):
    """The candidate: the checkpoint selected for evaluation, with what serving must know of it."""

    kind: Literal["model"] = "model"
    product: str
    base: Digest
    template: Digest
    weights: Digest
    method: Method
    rank: int | None
    checkpoint: Digest
    datasets: tuple[Digest, ...]
    recipe: Digest
    licences: tuple[str, ...]
    synthetic_share: float
    action_key: Digest


class SignedHead(Frozen):
    """The audit log's head at a time, signed by the log key (SSH namespace ``assay-log-v1``)."""

    sequence: int
    head: Digest
    signature: str


class ReleaseManifest(Frozen):
    """A candidate as registered: everything that a reviewer approves, and the log's head at that time. ``bom`` names
    its bill of materials, which its card names too, so that an approval of the card's difference covers it; releases
    of an earlier edition have none."""

    kind: Literal["release"] = "release"
    product: str
    tenant: str
    environment: str
    model: Digest
    weights: Digest
    base: Digest
    template: Digest
    verdict: Digest
    card: Digest
    card_diff: Digest
    bom: Digest | None = Field(default=None, exclude_if=lambda bom: bom is None)
    policy: Digest
    serving_config: Digest
    displaced_champion: Digest | None
    log_head: SignedHead
    action_key: Digest


class SuiteAgreement(Frozen):
    """What an exported model scored on some items of a suite, beside what the release had scored on them. ``differ``
    names the items of which a score is another; the means are of the suite's headline metric."""

    suite: str
    n: int = Field(ge=1)
    metric: str
    recorded: float
    exported: float
    differ: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the items, those that differ."""
        return len(self.differ) / self.n


class ExportManifest(Frozen):
    """A release as files for other servers. ``tree`` names all files of the folder but this manifest and the signature;
    ``public_key`` (PEM) checks that. ``tools`` are the versions that wrote it, ``engine`` is what answered for
    ``agreement``; suites in ``left_out`` were not asked again."""

    kind: Literal["export"] = "export"
    product: str
    release: Digest
    format: str
    base: Digest
    weights: Digest
    template: Digest
    tree: Digest
    tools: dict[str, str]
    engine: str
    agreement: tuple[SuiteAgreement, ...] = Field(min_length=1)
    left_out: tuple[str, ...]
    public_key: str
