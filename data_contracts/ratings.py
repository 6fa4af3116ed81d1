"""What raters say of a pair of answers, and what a policy demands of it."""

from typing import Literal

from pydantic import Field, model_validator

from data_contracts.frozen import Frozen

GUIDELINES = r"^[\w.+:/-]{1,64}$"
"""A version of the rater guidelines, e.g. ``support-2.1``. It stands in manifests, hence no free text."""
Label = Literal["first", "second", "tie"]
"""The better one of two answers, by the place in which the rater saw it."""


class Rating(Frozen):
    """One rater's word on one pair, under a version of the rater guidelines. An adjudicator's word wins, and is no
    rating of its own: it does not count for agreement."""

    rater: str = Field(min_length=1)
    label: Label
    guidelines: str = Field(pattern=GUIDELINES)
    adjudicator: bool = False


class PreferenceRule(Frozen):
    """``min_raters`` is the least number of raters of a pair, ``min_alpha`` what the whole 95% interval of
    Krippendorff's alpha (nominal) must reach under each version of the guidelines. Where ``guidelines`` names versions,
    ratings under others do not count."""

    min_raters: int = Field(default=1, ge=1)
    min_alpha: float | None = Field(default=None, gt=-1, le=1)
    guidelines: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _comparable(self) -> "PreferenceRule":
        if self.min_alpha is not None and self.min_raters < 2:
            raise ValueError("min_alpha needs min_raters of at least 2: one rater agrees with nobody")
        return self
