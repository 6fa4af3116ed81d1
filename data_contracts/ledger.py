"""Provenance of a row: where it came from, under which terms, for which purposes, until when."""

from collections.abc import Iterable
from datetime import date
from functools import cached_property
from itertools import groupby
from typing import Literal

from pydantic import Field

from data_contracts.digests import Digest, LinesDigest, canonical_json
from data_contracts.frozen import Frozen

Tier = Literal["gold", "silver", "bronze"]
Purpose = Literal["inference", "own-model", "shared-model"]
ConsentBasis = Literal["consent", "contract", "legitimate-interest", "synthetic", "public-licence", "none"]


class CorrectedAnswer(Frozen):
    """What a row of feedback corrects: the answer of this trace, by a release or the base."""

    trace_id: str
    release: Digest | None


class Origin(Frozen):
    """What the rows of a source have in common; of feedback also the ``answer`` that a row corrects. ``text`` is its
    canonical JSON, which travels with each row."""

    source: str
    source_digest: Digest
    contract: Digest
    licence: str
    consent: ConsentBasis
    purposes: tuple[Purpose, ...]
    retain_until: date | None
    tier: Tier
    synthetic_depth: int = 0
    answer: CorrectedAnswer | None = Field(default=None, exclude_if=lambda value: value is None)

    @cached_property
    def text(self) -> str:
        return canonical_json(self.payload()).decode()


class LedgerEntry(Frozen):
    """One row of the ledger. ``row`` and ``parents`` are row names, ``subject`` is a keyed hash."""

    row: Digest
    parents: tuple[Digest, ...] = ()
    subject: str
    origin: Origin


def ledger_digest(lines: Iterable[tuple[Digest, str, str]]) -> Digest:
    """Digest of what the ledger says of a data set: (row, subject, text of the origin) by row, each row once. Parents
    are no part of it, since later runs may add to them."""
    sealed = LinesDigest()
    sealed.add(" ".join(line) for line, _ in groupby(lines))
    return sealed.digest


class Expiring(Frozen):
    """Rows of one source whose time is up after ``retain_until``: as they were read, and as made from those."""

    retain_until: date
    source: str
    contract: Digest
    records: int
    derived: int
