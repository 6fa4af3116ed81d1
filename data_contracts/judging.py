"""Judge models: what a policy asks of one before it counts, and what its calibration against people showed."""

from typing import Literal

from pydantic import Field

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen


class JudgePolicy(Frozen):
    """What a judge must reach. Of each figure that end of its 95% interval counts which speaks against the judge.

    ``max_failed`` is the share of questions without a verdict, ``min_consistency`` the share of pairs on which a
    pairwise judge says the same when their places are swapped.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    min_items: int = Field(ge=8)
    min_kappa: float = Field(gt=0, le=1)
    min_consistency: float = Field(ge=0, le=1)
    max_failed: float = Field(ge=0, lt=1)


class Calibration(Frozen):
    """How far a judge agrees with people on a set. It holds for this judge (model, prompt, decoding and the code that
    reads its verdicts, in one digest) and this set (the labelled items, in one digest), and for no other.

    ``counts`` [label][verdict] is the confusion matrix; besides the judge's words a verdict is ``inconsistent`` (a
    pair judged otherwise when swapped) or ``failed`` (no verdict). Both count as disagreement, none is left out.
    ``failures`` counts questions without a verdict by their reason, of all that were ``asked``. ``first_place`` is the
    share of verdicts for the answer shown first. ``left_out`` items have a label that the mapping leaves out.
    """

    kind: Literal["calibration"] = "calibration"
    judge: Digest
    name: str
    served_model: str
    set: Digest
    items: int
    clusters: int
    left_out: int
    counts: dict[str, dict[str, int]]
    agreement: float
    kappa: float
    kappa_low: float
    kappa_high: float
    consistency: float | None
    consistency_low: float | None
    first_place: float | None
    asked: int
    failures: dict[str, int]
    failed_high: float

    def distrust(self, policy: JudgePolicy) -> str:
        """Why the judge does not count under this policy; nothing where it does."""
        reasons = []
        if self.items < policy.min_items:
            reasons.append(f"{self.items} labelled items, min_items is {policy.min_items}")
        if self.kappa_low < policy.min_kappa:
            interval = f"[{self.kappa_low:.3f}, {self.kappa_high:.3f}]"
            reasons.append(f"kappa {self.kappa:.3f} {interval}, min_kappa is {policy.min_kappa:g}")
        if self.consistency is not None and (self.consistency_low or 0.0) < policy.min_consistency:
            low = f"at least {self.consistency_low or 0.0:.3f}"
            reasons.append(f"consistency {self.consistency:.3f} ({low}), min_consistency is {policy.min_consistency:g}")
        if self.failed_high > policy.max_failed:
            failed = f"{sum(self.failures.values())} of {self.asked} questions got no verdict (up to"
            reasons.append(f"{failed} {self.failed_high:.3f}), max_failed is {policy.max_failed:g}")
        return "; ".join(reasons)
