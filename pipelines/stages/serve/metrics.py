"""What Prometheus reads of the gateway: counts and times of answers, no content.

Labels come from product files, routes, statuses and the codes of errors, never from what a client sent: series grow
with an operator's products and with nothing else. ``product`` and ``route`` are empty for a request that was refused
before it was known whose it is.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from data_contracts.traces import Trace, TraceCounts
from pipelines.stages.serve.concurrency import Load
from pipelines.stages.serve.view import Live

WHOLE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
"""Seconds; the last is the longest that vLLM is waited for."""
FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
EACH = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2)


class Metrics:
    """One gateway's. ``load``, ``live`` and ``traces`` are looked at in each scrape; the latter must be cheap."""

    def __init__(self, load: Load, live: Callable[[], Iterable[Live]], traces: Callable[[], TraceCounts]) -> None:
        self.registry = CollectorRegistry()
        self._gauge("assay_requests_in_flight", "Requests that vLLM answers", lambda: load.in_flight)
        self._gauge("assay_requests_queued", "Requests that wait for a place", lambda: load.queued)
        self._gauge("assay_requests_cold", "Requests in flight that wait for their adapter", lambda: load.cold)
        self._requests = self._counter("assay_requests", "Requests that ended", "product", "route", "status")
        self._errors = self._counter("assay_errors", "Requests that got no whole answer", "product", "kind")
        self._tokens = self._counter("assay_tokens", "Tokens of prompts and answers", "product", "tenant", "direction")
        self._json = self._counter("assay_json_answers", "Answers: a JSON object or not", "product", "route", "valid")
        self._refusals = self._counter(
            "assay_watched_answers", "Answers while traffic is shared: a refusal or not", "product", "route", "refused"
        )
        self._shadow = self._counter(
            "assay_shadow_requests", "Requests that were mirrored or not", "product", "outcome"
        )
        self._feedback = self._counter("assay_feedback", "Feedback that was taken, by what it says", "product", "says")
        self._kept = self._counter("assay_kept_answers", "Answers drawn to be kept in words", "product", "outcome")
        self._loads = self._counter("assay_adapter_loads", "Adapters loaded for requests", "product", "outcome")
        both = "product", "route"
        self._whole = self._seconds("assay_answer_seconds", "From request to the end of a whole answer", WHOLE, *both)
        self._first = self._seconds("assay_first_token_seconds", "From request to a stream's first text", FIRST, *both)
        self._each = self._seconds("assay_token_seconds", "Mean between a stream's tokens after the first", EACH, *both)
        self._load = self._seconds("assay_adapter_load_seconds", "Loading an adapter for requests", FIRST, "product")
        self._cold = self._seconds("assay_cold_wait_seconds", "Waits of requests for adapters", FIRST, "product")
        self._gauge("assay_traces_spooled", "Traces that wait for their store", lambda: traces().waiting)
        self.registry.register(_Traces(traces))
        self.registry.register(_Releases(live))

    def answered(self, trace: Trace, error: str = "") -> None:
        """An answer ended, well or with ``error``, its code."""
        product, route = trace.product, trace.route
        self._requests.labels(product, route, trace.status).inc()
        self._tokens.labels(product, trace.tenant, "in").inc(trace.prompt_tokens)
        self._tokens.labels(product, trace.tenant, "out").inc(trace.completion_tokens)
        if trace.json_valid is not None:
            _tell(self._json, product, route, trace.json_valid)
        if trace.refused is not None:
            _tell(self._refusals, product, route, trace.refused)
        if trace.status != 200:
            self._errors.labels(product, error).inc()
            return
        self._whole.labels(product, route).observe(trace.latency_ms / 1000)
        if trace.first_token_ms is not None:
            self._first.labels(product, route).observe(trace.first_token_ms / 1000)
            if (later := trace.completion_tokens - 1) > 0:
                self._each.labels(product, route).observe((trace.latency_ms - trace.first_token_ms) / 1000 / later)

    def denied(self, product: str, status: int, code: str) -> None:
        """A request ended before anybody was asked; ``product``, where the caller has shown a right to it."""
        self._requests.labels(product, "", status).inc()
        self._errors.labels(product, code).inc()

    def mirrored(self, product: str, outcome: Literal["answered", "failed", "stopped", "dropped"]) -> None:
        """``dropped`` before it was sent, ``stopped`` when nobody wanted its answer any more."""
        self._shadow.labels(product, outcome).inc()

    def said(self, product: str, says: str) -> None:
        """``says``: ``good``, ``bad``, ``correction`` or ``label``."""
        self._feedback.labels(product, says).inc()

    def kept(self, product: str, outcome: Literal["sealed", "failed", "dropped"]) -> None:
        """``dropped`` where too many waited to be sealed."""
        self._kept.labels(product, outcome).inc()

    def loaded(self, product: str, seconds: float) -> None:
        """An adapter that requests wait for."""
        self._loads.labels(product, "loaded").inc()
        self._load.labels(product).observe(seconds)

    def not_loaded(self, product: str) -> None:
        self._loads.labels(product, "failed").inc()

    def waited(self, product: str, seconds: float) -> None:
        """A request, for its adapter, whatever came of it."""
        self._cold.labels(product).observe(seconds)

    def text(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, now: Callable[[], float]) -> None:
        Gauge(name, text, registry=self.registry).set_function(now)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _seconds(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


class _Traces(Collector):
    """Counted where they are delivered."""

    def __init__(self, counts: Callable[[], TraceCounts]) -> None:
        self.counts = counts

    def describe(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("assay_traces", "What became of traces", labels=("outcome",))

    def collect(self) -> Iterator[CounterMetricFamily]:
        (family,) = self.describe()
        counts = self.counts()
        for outcome in ("stored", "duplicate", "torn", "lost"):
            family.add_metric((outcome,), getattr(counts, outcome))
        yield family


class _Releases(Collector):
    """Read at each scrape, so that a release that went leaves no series behind."""

    def __init__(self, live: Callable[[], Iterable[Live]]) -> None:
        self.live = live

    def describe(self) -> Iterator[GaugeMetricFamily]:
        labels = ("product", "tenant", "route", "release")
        yield GaugeMetricFamily("assay_release_info", "What answers for a product now: 1", labels=labels)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        (family,) = self.describe()
        for each in self.live():
            family.add_metric((each.product, each.tenant, each.route, each.release or ""), 1)
        yield family


def _tell(counter: Counter, product: str, route: str, what: bool) -> None:
    """Both words get a series, so that a share of none is 0 and not unknown."""
    for word, true in (("true", what), ("false", not what)):
        counter.labels(product, route, word).inc(true)
