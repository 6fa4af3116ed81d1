"""The policy of the meters: windows, methods, thresholds, what mends which of them, and the cool-down, in one frozen
file."""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen

Remedy = Literal["retrain", "prompt", "documents", "serving"]
"""What mends a signal. Only the first is the line's own; the others are for people: prompt, template or server settings
that the answers' form hangs on; the documents that are retrieved; speed and cost of serving."""
POLICY = Path(__file__).with_name("policy.yaml")
_EDITION = 2
"""Of what is counted in a window."""

Of = Literal["answers", "exchanges", "judged"]
Method = Literal["shares", "rate", "slowest", "meaning", "unseen", "growth", "limit"]
AlertKind = Literal["drift", "quality", "safety", "service", "new-label"]


class MeterRule(Frozen):
    """How one meter is read. ``threshold`` is what a window's score must reach: of ``rate``, ``slowest`` and
    ``meaning`` a p-value, which it must not exceed.

    ``shares``: population stability index. ``rate``: how many of ``hit`` and ``miss`` are ``hit``; more often than in
    the reference, by Fisher's exact test. ``slowest``: the same for answers beyond the reference's 95th percentile.
    ``meaning``: the energy distance of sentence embeddings. ``unseen``: how many are of categories that the reference
    has not. ``growth``: the value as a multiple of the reference's. ``limit``: the value itself.

    ``counted``: what of a window is read, the meter's own name unless stated. ``against`` ``training`` the reference is
    what the release learned from, else the first window. ``rises`` is the level of the CUSUM from which a slow rise
    counts. ``alert``: what its lasting drift is called; ``remedy``: what mends it.
    """

    of: Of
    method: Method
    threshold: float = Field(gt=0)
    counted: str = ""
    hit: str = "hit"
    miss: str = "miss"
    against: Literal["first", "training"] = "first"
    rises: float | None = Field(default=None, gt=0)
    alert: AlertKind = "drift"
    remedy: Remedy = "retrain"

    @model_validator(mode="after")
    def _fits(self) -> "MeterRule":
        if self.method in ("rate", "slowest", "meaning") and self.threshold >= 1:
            raise ValueError("threshold is a p-value here, below 1")
        if self.rises is not None and self.method not in ("rate", "slowest"):
            raise ValueError("rises goes with rate and slowest only")
        return self


class SignalPolicy(Frozen):
    """``check``: when the schedule `drift_check` looks, as cron writes it (UTC)."""

    check: str = Field(pattern=r"^\S+( \S+){4}$")
    window: int = Field(ge=2)
    exchanges: int = Field(ge=2)
    windows: int = Field(ge=1)
    sustained: int = Field(ge=1)
    history: int = Field(ge=1)
    meters: dict[str, MeterRule] = Field(min_length=1)
    prompt_chars_edges: tuple[int, ...] = Field(min_length=1)
    answer_tokens_edges: tuple[int, ...] = Field(min_length=1)
    toxic_from: float = Field(gt=0, lt=1)
    cool_down_hours: float = Field(ge=0)
    budget_hours: float = Field(gt=0)
    grace_seconds: int = Field(ge=0)
    worth: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0, lt=1)
    label_minutes: float = Field(ge=0)

    @property
    def shape(self) -> Digest:
        """Of what makes a window of answers: another one cuts them anew."""
        edges = {name: list(getattr(self, name)) for name in ("prompt_chars_edges", "answer_tokens_edges")}
        return sha256_json({"edition": _EDITION, "window": self.window, **edges})

    @property
    def exchange_shape(self) -> Digest:
        """The same of a window of exchanges, by this classifier and this embedder."""
        return sha256_json({"edition": _EDITION, "exchanges": self.exchanges, "toxic_from": self.toxic_from})

    def remedy(self, meter: str) -> Remedy:
        return self.meters[meter].remedy

    @model_validator(mode="after")
    def _can_be_met(self) -> "SignalPolicy":
        if self.sustained > self.windows:
            raise ValueError("sustained cannot be more than windows")
        if self.windows > self.history:
            raise ValueError("windows cannot be more than history")
        for edges in (self.prompt_chars_edges, self.answer_tokens_edges):
            if list(edges) != sorted(set(edges)):
                raise ValueError("prompt_chars_edges and answer_tokens_edges must rise")
        return self


def load_policy(path: Path = POLICY) -> SignalPolicy:
    try:
        return SignalPolicy.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"drift policy {path}: {error}") from error
