"""OpenTelemetry spans: one a request, with a child for each release that vLLM was asked for it. Names of attributes are
those of the GenAI semantic conventions, and ``assay.*`` for what is ours; no text of a question or an answer.

Only the API is used here, which does nothing by itself; `resources.telemetry` is what sends spans to a collector.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from data_contracts.traces import Trace
from pipelines.stages.serve.answer import Target

W3C = TraceContextTextMapPropagator()
"""``traceparent`` and ``tracestate``; a client's baggage goes nowhere."""
ASKED = ("max_tokens", "temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "stream")
"""Fields of a request for vLLM that ``gen_ai.request.*`` has a name for, numbers all of them."""

Attributes = dict[str, str | bool | int | float | list[str]]


class Telemetry(Protocol):
    """Takes spans at once, and sends them when it can."""

    @property
    def tracer(self) -> Tracer: ...
    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        ...


class RequestSpan:
    """From a request's beginning to its end, of which the first that is told counts."""

    def __init__(self, tracer: Tracer, context: Context) -> None:
        self._tracer = tracer
        self._span = tracer.start_span("chat", context, SpanKind.SERVER, {"gen_ai.operation.name": "chat"})
        self._call: Span | None = None

    def calls(self, goal: Target) -> dict[str, str]:
        """vLLM is asked for this release; the headers that say of which trace that is."""
        model = goal.adapter or goal.base
        attributes: Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": model,
        }
        context = set_span_in_context(self._span, Context())
        self._call = self._tracer.start_span(f"chat {model}", context, SpanKind.CLIENT, attributes)
        headers: dict[str, str] = {}
        W3C.inject(headers, set_span_in_context(self._call, Context()))
        return headers

    def call_failed(self, error: str) -> None:
        """That release cannot answer."""
        if self._call is not None:
            _end(self._call, {"error.type": error}, failed=True)
            self._call = None

    def answered(self, asked: Mapping[str, Any], trace: Trace, cut: bool, error: str) -> None:
        """The end of a request of which vLLM was asked; ``error`` as the client was told."""
        usage: Attributes = {
            "gen_ai.usage.input_tokens": trace.prompt_tokens,
            "gen_ai.usage.output_tokens": trace.completion_tokens,
        }
        if trace.status in (200, 422):
            usage["gen_ai.response.finish_reasons"] = ["length" if cut else "stop"]
        failed = trace.status >= 500
        if self._call is not None:
            _end(self._call, usage | ({"error.type": error} if error else {}), failed)
        attributes = usage | {f"gen_ai.request.{name}": asked[name] for name in ASKED if name in asked}
        attributes |= {
            "gen_ai.response.id": trace.trace_id,
            "gen_ai.response.model": trace.adapter or trace.base,
            "assay.trace_id": trace.trace_id,
            "assay.route": trace.route,
            "assay.release": trace.release or "",
            "assay.reason": trace.reason,
        }
        if trace.first_token_ms is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = trace.first_token_ms / 1000
        self._end(trace.product, trace.status, error, attributes)

    def refused(self, product: str, status: int, error: str) -> None:
        """The end of a request of which nobody was asked; ``product`` is empty before it is known whose it is."""
        self._end(product, status, error, {})

    def _end(self, product: str, status: int, error: str, attributes: Attributes) -> None:
        if not self._span.is_recording():
            return
        if product:
            self._span.update_name(f"chat {product}")
            attributes = attributes | {"gen_ai.request.model": product}
        attributes = attributes | {"gen_ai.provider.name": "assay", "http.response.status_code": status}
        _end(self._span, attributes | ({"error.type": error} if error else {}), failed=status >= 500)


class Spans:
    """Of one gateway; without ``telemetry`` there are none, and a client's ``traceparent`` is not read."""

    def __init__(self, telemetry: Telemetry | None) -> None:
        self._telemetry = telemetry
        self._tracer: Tracer = telemetry.tracer if telemetry else NoOpTracer()

    def begin(self, headers: Mapping[str, str]) -> RequestSpan:
        context = W3C.extract(headers, Context()) if self._telemetry else Context()
        return RequestSpan(self._tracer, context)

    def close(self) -> None:
        if self._telemetry:
            self._telemetry.close()


def _end(span: Span, attributes: Attributes, failed: bool) -> None:
    span.set_attributes(attributes)
    if failed:
        span.set_status(Status(StatusCode.ERROR))
    span.end()
