"""Spans to an OpenTelemetry collector, over OTLP/HTTP, as the standard environment variables (``OTEL_*``) say."""

import logging
import os
import threading
import time
from collections.abc import Mapping

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
LIBRARIES = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""Loggers that say of every batch, and of every span, that it is lost."""
CLOSE_S = 3.0
"""For the last spans, when the gateway ends."""
QUIET_S = 600.0
"""Between two lines of the log about spans that cannot be sent."""

log = logging.getLogger(__name__)


class OtlpTelemetry:
    """Implements `pipelines.stages.serve.spans.Telemetry`. A thread sends; spans that wait are bounded, and those above
    that are lost, so that a collector which is away costs nothing but its spans."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        for name in LIBRARIES:
            library = logging.getLogger(name)
            if not any(isinstance(each, _Seldom) for each in library.filters):
                library.addFilter(_Seldom())
        ours = Resource.create({"service.name": "assay-gateway"})
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self._provider.get_tracer("assay.gateway")

    def close(self) -> None:
        """For `CLOSE_S` at most: a collector that does not answer would hold up the end much longer."""
        ending = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(CLOSE_S)


def telemetry_of(environment: Mapping[str, str] = os.environ) -> OtlpTelemetry | None:
    """``None`` unless an endpoint is named there. What is wrong in the other variables costs the spans, no answer."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return None
    try:
        return OtlpTelemetry()
    except ValueError as error:
        log.error("no spans are sent: an OTEL_* variable is wrong (%s)", error)
        return None


class _Seldom(logging.Filter):
    """One line in `QUIET_S`, whatever it says."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + QUIET_S
        return True
