"""POST /v1/feedback: what a user or a reviewer says of an answer, taken at once, read by the collector.

Whether an answer is another tenant's or was never given cannot be told apart: both are looked for in the same way.
"""

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from data_contracts.digests import canonical_json
from data_contracts.errors import AssayError, Unavailable
from data_contracts.traces import Trace
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.errors import Denied
from pipelines.stages.serve.raw_text import RawFeedback, sealed

SECONDS = 2.0
"""That an answer's trace is waited for, on its way to the store."""


class Opinions:
    def __init__(self, parts: Parts, now: Callable[[], datetime]) -> None:
        self.parts, self.now = parts, now

    def take(self, body: dict[str, Any], tenant: str | None, open_for: Collection[str]) -> tuple[str, str]:
        """The id under which it is known, and the product, "" where that is not known yet. ``tenant`` is ``None`` for
        the operator, who speaks for reviewers; ``open_for``: the products that take feedback. Blocks. Raises `Denied`,
        `Unavailable`."""
        if tenant is not None and body.get("label") is not None:
            raise Denied(403, "not_allowed", "labels are reviewers': they come with the operator's key")
        said = RawFeedback(
            trace_id=body["trace_id"],
            by="reviewer" if tenant is None else "user",
            rating=body.get("rating"),
            correction=body.get("correction"),
            label=body.get("label"),
            user=body.get("user"),
        )
        trace, certain = self._trace(said.trace_id, tenant)
        if trace is None and (certain or tenant is None):
            if not certain:
                raise Unavailable("answers cannot be looked up now: ask again")
            raise Denied(404, "no_such_answer", "no answer of this key's tenant has this trace_id")
        product = trace.product if trace else ""
        if trace is not None and product not in open_for:
            raise Denied(403, "no_feedback", f"{product} takes no feedback: its product file has no `keep`")
        owner = trace.tenant if trace else str(tenant)
        known = body.get("id") or said.payload()
        ref = self.parts.keyring.subject(canonical_json([said.by, owner, said.trace_id, known]).decode())
        name = f"feedback-{ref}"
        closed = sealed(self.parts.tenant_keys, said, name, self.now(), owner, product)
        if not self.parts.feedback.add_sealed(closed):
            raise Unavailable("feedback cannot be taken now: ask again")
        return name, product

    def _trace(self, trace_id: str, tenant: str | None) -> tuple[Trace | None, bool]:
        """The tenant's own, and whether that is certain: an answer may still be on its way to the store."""
        certain = True
        for last in (False, True):
            try:
                found = self.parts.traces.get(trace_id)
            except AssayError:
                return None, False
            if found is not None and tenant in (None, found.tenant):
                return found, True
            if not last:
                certain = self.parts.traces.flush(SECONDS)
        return None, certain
