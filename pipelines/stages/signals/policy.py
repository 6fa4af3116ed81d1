"""The drift policy: windows, thresholds, what mends which signal, and the cool-down, in one frozen file."""

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


class SignalPolicy(Frozen):
    window: int = Field(ge=2)
    windows: int = Field(ge=1)
    sustained: int = Field(ge=1)
    psi: float = Field(gt=0)
    prompt_chars_edges: tuple[int, ...] = Field(min_length=1)
    cool_down_hours: float = Field(ge=0)
    budget_hours: float = Field(gt=0)
    grace_seconds: int = Field(ge=0)
    remedies: dict[str, Remedy]
    worth: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0, lt=1)
    label_minutes: float = Field(ge=0)

    @property
    def shape(self) -> Digest:
        """Of what makes a window: another one cuts the answers anew."""
        return sha256_json({"window": self.window, "prompt_chars_edges": list(self.prompt_chars_edges)})

    def remedy(self, feature: str) -> Remedy:
        """Raises `BadInput` for one that the policy does not name: what mends it must be decided before it drifts."""
        if feature not in self.remedies:
            raise BadInput(f"the drift policy names no remedy for {feature}: add a line to `remedies` in {POLICY.name}")
        return self.remedies[feature]

    @model_validator(mode="after")
    def _can_be_met(self) -> "SignalPolicy":
        if self.sustained > self.windows:
            raise ValueError("sustained cannot be more than windows")
        if list(self.prompt_chars_edges) != sorted(set(self.prompt_chars_edges)):
            raise ValueError("prompt_chars_edges must rise")
        return self


def load_policy(path: Path = POLICY) -> SignalPolicy:
    try:
        return SignalPolicy.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"drift policy {path}: {error}") from error
