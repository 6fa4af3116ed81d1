"""Provenance of a row: where it came from, under which terms, for which purposes, until when."""

from collections.abc import Callable
from datetime import date
from operator import attrgetter
from typing import Literal

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

Tier = Literal["gold", "silver", "bronze"]
Purpose = Literal["inference", "own-model", "shared-model"]
ConsentBasis = Literal["consent", "contract", "legitimate-interest", "synthetic", "public-licence", "none"]


class LedgerEntry(Frozen):
    """One row of the ledger. ``row`` and ``parents`` are row names, ``subject`` is a keyed hash."""

    row: Digest
    parents: tuple[Digest, ...] = ()
    subject: str
    source: str
    source_digest: Digest
    contract: Digest
    licence: str
    consent: ConsentBasis
    purposes: tuple[Purpose, ...]
    retain_until: date | None
    tier: Tier
    synthetic_depth: int = 0


shared_terms: Callable[[LedgerEntry], tuple[object, ...]] = attrgetter(
    *(field for field in LedgerEntry.model_fields if field not in ("row", "parents", "subject"))
)
"""What an entry has in common with others of its source: all but its row, parents and subject."""


class Expiring(Frozen):
    """Rows of one source whose time is up after ``retain_until``: as they were read, and as made from those."""

    retain_until: date
    source: str
    contract: Digest
    records: int
    derived: int
