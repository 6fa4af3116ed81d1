"""One request from its admission to its end: who answers it, what is said of that, and its trace."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from data_contracts.digests import Digest
from data_contracts.traces import Trace
from evals.refusals import refuses
from pipelines.recipes.product import Product
from pipelines.stages.protocols import TraceStore
from pipelines.stages.serve import relay
from pipelines.stages.serve.admission import Place
from pipelines.stages.serve.answer import has_form
from pipelines.stages.serve.choice import Chosen
from pipelines.stages.serve.metrics import Metrics
from pipelines.stages.serve.mirror import Live
from pipelines.stages.serve.spans import RequestSpan


class Tracer:
    """``goal`` is who is asked, or answered; ``failed`` the releases that were asked before. ``began`` is of
    `time.monotonic`. ``mirrors``: what else wants to know of an answer."""

    def __init__(
        self,
        traces: TraceStore,
        metrics: Metrics,
        product: Product,
        chosen: Chosen,
        asked: Mapping[str, Any],
        offered: list[str],
        began: float,
        place: Place,
        mirrors: Sequence[Callable[[Live], None]],
        span: RequestSpan,
    ) -> None:
        self.traces, self.metrics, self.mirrors, self.span = traces, metrics, mirrors, span
        self.asked, self.asked_at = asked, time.monotonic()
        self.product, self.began, self.place = product, began, place
        self.goal, self.notices = chosen
        self.failed: tuple[Digest, ...] = ()
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.prompt_chars = sum(len(message["content"]) for message in asked["messages"])
        self.seen = relay.Answered(offered, form=has_form(asked))

    @property
    def provenance(self) -> dict[str, str | None]:
        return self.goal.provenance(self.id)

    @property
    def headers(self) -> dict[str, str]:
        named = {name: value for name, value in self.provenance.items() if name != "reason"}
        return {f"x-assay-{name.replace('_', '-')}": value or "none" for name, value in named.items()} | self.notices

    def calls(self) -> dict[str, str]:
        """vLLM is asked; the headers that its request carries."""
        return {"x-request-id": self.id.removeprefix("chatcmpl-")} | self.span.calls(self.goal)

    def falls_back(self, instead: Chosen) -> None:
        """From a release that could not answer to another, or to the base."""
        self.failed = tuple(filter(None, (*self.failed, self.goal.release)))
        self.goal, self.notices = instead

    def write(self, status: int, reason: str = "", error: str = "") -> None:
        """The trace, counted, and the request's place is free. ``error`` is the code that the client was told."""
        valid, tool = self.seen.judged() if status == 200 else (False if status == 422 else None, None)
        watched = status == 200 and self.goal.cohort is not None
        trace = Trace(
            trace_id=self.id,
            time=datetime.now(UTC),
            tenant=self.product.tenant,
            product=self.product.name,
            route=self.goal.route,
            release=self.goal.release,
            base=self.goal.base,
            adapter=self.goal.adapter,
            export=self.goal.export,
            template=self.goal.template,
            status=status,
            reason=reason or self.goal.reason,
            failed=self.failed,
            prompt_chars=self.prompt_chars,
            prompt_tokens=self.seen.prompt_tokens,
            completion_tokens=self.seen.completion_tokens,
            latency_ms=(time.monotonic() - self.began) * 1000,
            first_token_ms=None if self.seen.first is None else (self.seen.first - self.began) * 1000,
            json_valid=valid,
            tool=tool,
            cohort=self.goal.cohort,
            refused=refuses(self.seen.words()) if watched else None,
        )
        self.traces.add(trace)
        self.metrics.answered(trace, error)
        self.span.answered(self.asked, trace, self.seen.cut, error)
        self.place.leave(self.seen.prompt_tokens + self.seen.completion_tokens)
        if self.mirrors and status in (200, 422):
            live = Live(self.asked, trace, self.seen, (time.monotonic() - self.asked_at) * 1000)
            for mirror in self.mirrors:
                mirror(live)
