"""What was decided, on what evidence: evaluation results, gate verdicts, approvals, canary verdicts, erasures."""

from datetime import datetime
from typing import Literal

from pydantic import Field, field_validator

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.manifests import SignedHead

Decision = Literal["promote", "hold", "inconclusive"]
Outcome = Literal["pass", "fail", "inconclusive"]
Reruns = dict[str, tuple[Digest, ...]]
CriterionKind = Literal["superiority", "non-inferiority", "floor", "ceiling"]


class ItemScore(Frozen):
    """One item of a suite, by name. ``cluster`` groups items that are not independent; text lies elsewhere."""

    item: str
    cluster: str
    scores: dict[str, float]


class Judged(Frozen):
    """Who judged a metric: the judge's identity, its calibration if it has one, and the policy that this was held
    against. ``untrusted`` says why the judge does not count. ``failed`` items got no verdict; they score 0."""

    judge: Digest
    policy: Digest
    calibration: Digest | None
    untrusted: str
    failed: int


class EvalResult(Frozen):
    """One artifact on one suite. ``artifact`` is the digest of what answered (base, or adapter on base).

    ``samples`` names the blob of generated text, which erasure may delete; the scores stay. ``judged`` names the
    metrics that a judge model scored. ``confidence`` is, by item, the mean log-probability of the answer's tokens,
    where the server told it.
    """

    kind: Literal["eval"] = "eval"
    product: str
    suite: str
    suite_digest: Digest
    artifact: Digest
    template: Digest
    decoding: Digest
    engine: str
    items: tuple[ItemScore, ...] = Field(min_length=1)
    samples: Digest | None
    judged: dict[str, Judged] = {}
    confidence: dict[str, float] = Field(default={}, exclude_if=lambda told: not told)
    action_key: Digest


class LayerResults(Frozen):
    """All results of one evaluation layer. ``results`` maps ``suite/subject`` to an `EvalResult`'s digest; subjects
    are ``base``, ``champion`` (when there is one) and ``candidate``. ``reruns``, where the gate policy asks for them,
    maps a baseline to its results with the policy's seeds, in their order."""

    kind: Literal["layer"] = "layer"
    product: str
    model: Digest
    layer: str
    results: dict[str, Digest]
    reruns: Reruns = Field(default={}, exclude_if=lambda reruns: not reruns)


class CriterionResult(Frozen):
    """One line of the gate table. ``effect`` is candidate minus baseline, with its confidence interval; of a ceiling it
    is the ceiling minus the candidate. More is always better.

    ``mde`` is the minimum detectable effect: how far beyond its bound the truth must lie to pass in four cases of five,
    with so many clusters of such scatter. ``p_hold`` is the one-sided p-value of "the bound is kept", adjusted over all
    criteria (Holm). ``noise`` is the noise floor, where one was measured.
    """

    name: str
    kind: CriterionKind
    suite: str
    metric: str
    n: int
    clusters: int
    baseline: str
    baseline_mean: float
    candidate_mean: float
    effect: float
    ci_low: float
    ci_high: float
    margin: float
    confidence: float
    mde: float
    p_hold: float
    noise: float | None
    outcome: Outcome
    reason: str


class GateVerdict(Frozen):
    """``results`` and ``reruns`` as in the layers: what the criteria come out of."""

    kind: Literal["verdict"] = "verdict"
    product: str
    model: Digest
    policy: Digest
    results: dict[str, Digest]
    reruns: Reruns = Field(default={}, exclude_if=lambda reruns: not reruns)
    criteria: tuple[CriterionResult, ...] = Field(min_length=1)
    decision: Decision
    reason: str
    action_key: Digest


class ApprovalStatement(Frozen):
    """What a reviewer signs (DESIGN invariant 9): change any of it and the signature is void."""

    decision: Literal["approve", "reject"]
    product: str
    environment: str
    weights: Digest
    base: Digest
    template: Digest
    verdict: Digest
    card_diff: Digest
    policy: Digest
    serving_config: Digest
    displaced_champion: Digest | None
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")
    expires: datetime

    @field_validator("expires")
    @classmethod
    def _has_a_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("expires needs a time zone, e.g. 2030-01-31T12:00:00Z")
        return value


class Approval(Frozen):
    """A statement with the SSH signature over its canonical bytes (namespace ``assay-approval-v1``)."""

    kind: Literal["approval"] = "approval"
    release: Digest
    statement: ApprovalStatement
    principal: str
    signature: str
    reason: str = ""


class LiveSignal(Frozen):
    """One kind of good answer, among people whom the challenger or the champion answered first while both did:
    how many of each, and which share was good.

    ``log_e_worse`` is the logarithm of an e-value against "the challenger is no worse", ``log_e_within`` of one
    against "it loses ``margin`` or more" (see `evals.sequential`). ``unseen``: no answer was of that kind.
    """

    name: str
    answers: tuple[int, int]
    good: tuple[float, float]
    margin: float
    log_e_worse: float
    log_e_within: float
    outcome: Literal["within", "worse", "open", "unseen"]


class CanaryVerdict(Frozen):
    """``requests`` to ``p95_ms`` are of the product's own prompts; ``live`` of the traffic, where a share of it was
    answered."""

    kind: Literal["canary"] = "canary"
    product: str
    release: Digest
    champion: Digest | None
    requests: int
    errors: int
    json_valid: int
    p95_ms: float
    live: tuple[LiveSignal, ...] = ()
    outcome: Literal["pass", "fail"]
    reason: str


class RouteTaken(Frozen):
    """A release that was live when it was revoked, and who answers since (``None``: the base)."""

    product: str
    environment: str
    release: Digest
    fallback: Digest | None


class RetrainProposal(Frozen):
    """What training anew without the erased rows concerns and costs. ``effort_seconds`` is the median of past runs,
    or what the stages last took to train; ``None`` when none is known."""

    product: str
    training_rows: int
    erased_rows: int
    effort_seconds: int | None


class ErasureReceipt(Frozen):
    """What was done about one subject, and what that proves. Pseudonyms and names only.

    ``begun`` is the audit record of the intention. ``kept_rows`` were made from the subject's rows together with
    another person's, who keeps them. ``data_sets`` are roots, ``quarantines`` action keys of steps; ``checkpoints``,
    ``weights``, ``models`` and ``releases`` learned from the rows and are revoked, not rewritten. ``log_head`` is
    signed by the log key over everything up to the receipt.
    """

    kind: Literal["erasure"] = "erasure"
    subject: str
    reason: str
    begun: Digest
    rows: tuple[Digest, ...]
    kept_rows: tuple[Digest, ...]
    sources: tuple[str, ...]
    data_sets: tuple[Digest, ...]
    quarantines: tuple[Digest, ...]
    checkpoints: tuple[Digest, ...]
    weights: tuple[Digest, ...]
    models: tuple[Digest, ...]
    releases: tuple[Digest, ...]
    samples: tuple[Digest, ...]
    routes: tuple[RouteTaken, ...]
    retraining: tuple[RetrainProposal, ...]
    proved: tuple[str, ...]
    not_proved: tuple[str, ...]
    log_head: SignedHead
