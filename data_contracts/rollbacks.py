"""What is said after a rollback: why it was needed, and who saw the release that was taken back."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

Category = Literal["data", "training", "evaluation", "serving", "requirements", "outside"]
"""Where the cause lay: in the rows, in how it was trained, in what the gate did not ask, in how it was served, in what
was wanted of it, or in something that is not ours."""


class RootCauseStatement(Frozen):
    """What is signed about the rollback whose audit record has this digest."""

    product: str
    environment: str
    rollback: Digest
    category: Category
    text: str = Field(min_length=10)


class RootCause(Frozen):
    """A statement with the SSH signature over its canonical bytes (namespace ``assay-root-cause-v1``)."""

    kind: Literal["root-cause"] = "root-cause"
    statement: RootCauseStatement
    principal: str
    signature: str


class Saw(Frozen):
    """A tenant whom a release answered so often, from the first time to the last; ``failed`` requests got no answer."""

    tenant: str
    answers: int
    failed: int
    first: datetime
    last: datetime


class SupportNote(Frozen):
    """For those who speak with customers: what was live in vain, from ``since`` until ``until``, and who saw it.
    ``now`` answers in its place; ``None``: the base."""

    product: str
    environment: str
    release: Digest
    now: Digest | None
    since: datetime
    until: datetime
    reason: str
    saw: tuple[Saw, ...]
