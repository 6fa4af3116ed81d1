"""What the gateway keeps of an answer: who asked what product, which release answered, how it went. No text."""

from datetime import datetime
from typing import NamedTuple

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen


class Trace(Frozen):
    """``route`` says who answered: the champion release, a challenger under canary, or the base as fallback.
    ``failed`` are the releases that were to answer, and could not, the first first.

    ``cohort`` and ``refused`` are kept while a challenger answers a share of the traffic: a keyed hash of who asked,
    which decides who is answered by whom, and whether the answer reads as a refusal.
    """

    trace_id: str
    time: datetime
    tenant: str
    product: str
    route: str
    release: Digest | None
    base: Digest
    adapter: Digest | None
    export: Digest | None = None
    """Whose merged weights answered, in the adapter's place."""
    template: Digest
    status: int
    reason: str = ""
    failed: tuple[Digest, ...] = ()
    prompt_chars: int
    prompt_tokens: int
    completion_tokens: int
    latency_ms: float
    first_token_ms: float | None = None
    """To the first text of a stream."""
    json_valid: bool | None
    tool: str | None = None
    cohort: str | None = None
    refused: bool | None = None


class Position(NamedTuple):
    """A trace's place among those of its release: by the time at which the answer ended, then by id."""

    time: datetime
    trace_id: str


class SealedWindow(Frozen):
    """So many ``answers`` of a release in a row. ``counts``: feature -> category -> count; ``values``: what is none.
    It ends with the answer ``last`` at ``time``. The first of a release has the number 0. Once kept it stays as it
    is."""

    number: int
    begins: datetime | None = None
    time: datetime
    last: str
    answers: int
    counts: dict[str, dict[str, int]]
    values: dict[str, float] = {}

    @property
    def end(self) -> Position:
        return Position(self.time, self.last)


class TraceCounts(NamedTuple):
    """What became of the traces that this process took: ``waiting`` in the spool, ``stored``, in the store already when
    they were delivered (``duplicate``), cut short by a crash (``torn``), or ``lost``, since the spool could not be
    written."""

    waiting: int
    stored: int
    duplicate: int
    torn: int
    lost: int


class Residence(Frozen):
    """The memory that adapters of a tenant's product took, in bytes times seconds, counted up to ``time``."""

    time: datetime
    tenant: str
    product: str
    byte_seconds: int


class Usage(Frozen):
    """What was answered, or tried, for a tenant by one product, and the memory that its adapters took. Tokens of a
    stream that broke count as far as it came."""

    tenant: str
    product: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    byte_seconds: int = 0


class ShadowTrace(Frozen):
    """How another release did with a request that ``live`` (``None``: the base) had answered; nobody got its answer.
    Kept apart from `Trace`, so that nobody who reads what clients got can take it for that.

    ``status`` is 422 for half a JSON and 502 for no answer. Milliseconds count from asking vLLM to the answer's end.
    ``equal`` is ``None`` where nothing follows from it: there is no answer, or the request asked to draw one.
    """

    trace_id: str
    """Of the live answer."""
    time: datetime
    product: str
    live: Digest | None
    shadow: Digest
    status: int
    equal: bool | None
    live_json_valid: bool
    json_valid: bool | None
    live_ms: float
    ms: float | None
