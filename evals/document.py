"""Documents that a product ships, and how often the facts in them change."""

from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise

from pydantic import Field, model_validator

from data_contracts.frozen import Frozen
from evals.stats import Interval

YEAR = 365.25
"""Days."""
LATELY = 90
"""Days before the stated one in which a change is a late one."""
LONGEST = 2000
"""Characters of a document. It is put before a question whole, so it is a passage, no page."""
CONFIDENCE = 0.95


class Document(Frozen):
    """A passage, the day from which on its changes were noted, and the days on which a fact in it ``changed``."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    written: date
    changed: tuple[date, ...] = ()

    @model_validator(mode="after")
    def _is_a_passage(self) -> "Document":
        if len(self.text) > LONGEST:
            raise ValueError(f"text has {len(self.text)} characters, {LONGEST} at most: split it into passages")
        return self

    @model_validator(mode="after")
    def _changes_in_order(self) -> "Document":
        days = (self.written, *self.changed)
        if any(later <= earlier for earlier, later in pairwise(days)):
            raise ValueError("changed: give each day once, in order, all of them after `written`")
        return self


class Volatility(Frozen):
    """``years`` are years of one document each, added up; ``per_year`` the changes of one document a year, with its
    interval; ``lately`` the share of documents that changed in the last ``days`` days."""

    documents: int
    years: float
    changes: int
    per_year: Interval
    lately: float
    days: int = LATELY


def volatility(documents: Sequence[Document], as_of: date) -> Volatility:
    """Measured up to the end of ``as_of``, after which nothing may have been written or changed. The interval of the
    rate is that of a Poisson count, exact (Garwood 1936, doi:10.1093/biomet/28.3-4.437)."""
    from scipy.special import gammaincinv

    tail = (1 - CONFIDENCE) / 2
    years = sum((as_of - each.written).days + 1 for each in documents) / YEAR
    changes = sum(len(each.changed) for each in documents)
    low = float(gammaincinv(changes, tail)) if changes else 0.0
    high = float(gammaincinv(changes + 1, 1 - tail))
    since = as_of - timedelta(days=LATELY)
    lately = sum(any(day > since for day in each.changed) for each in documents)
    return Volatility(
        documents=len(documents),
        years=years,
        changes=changes,
        per_year=Interval(changes / years, low / years, high / years),
        lately=lately / len(documents),
    )
