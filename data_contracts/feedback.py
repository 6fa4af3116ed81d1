"""What is kept of some answers in words, and what people said of answers. Text is scrubbed before it is kept, and
sealed until then."""

from datetime import datetime
from typing import Literal

from pydantic import Field, model_validator

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.records import Message, ToolSpec


class Exchange(Frozen):
    """A question and its answer, of the sample that a product keeps; the trace of the same id says how it went.
    ``policy`` is the data policy that both were scrubbed by, ``subject`` a keyed hash of the `user` that the request
    named, if any."""

    trace_id: str
    time: datetime
    tenant: str
    product: str
    release: Digest | None
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[ToolSpec, ...] = ()
    answer: str
    policy: Digest
    subject: str | None = None


class Feedback(Frozen):
    """What a user or a reviewer said of one answer: that it is good or bad, what it should have been (``correction``),
    or what the question was about (``label``); one of them at least.

    ``feedback_id`` is the sender's, or follows from what is said: what is delivered twice counts once. ``author`` is a
    keyed hash. ``release`` is the trace's, ``None`` for the base.
    """

    feedback_id: str
    trace_id: str
    time: datetime
    tenant: str
    product: str
    release: Digest | None
    by: Literal["user", "reviewer"]
    author: str
    rating: Literal["good", "bad"] | None = None
    correction: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Feedback":
        if self.rating is None and self.correction is None and self.label is None:
            raise ValueError("name a rating, a correction or a label")
        return self


class Sealed(Frozen):
    """Raw text on its way to the collector. ``data`` is an age file in base64, which only its tenant's key opens.
    ``name`` is the trace's for an exchange, the feedback's for feedback: what is sent twice waits once."""

    name: str
    time: datetime
    tenant: str
    product: str
    kind: Literal["exchange", "feedback"]
    data: str
