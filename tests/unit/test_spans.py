"""OpenTelemetry spans as a collector gets them, and what becomes of answers where there is no collector."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from data_contracts.digests import sha256_bytes
from evals.answers import words
from resources import telemetry
from resources.adapters import served_name
from resources.telemetry import OtlpTelemetry, telemetry_of
from tests.support.gateway import HELLO, Installation, installed
from tests.support.ports import free_ports

A, B = sha256_bytes(b"a"), sha256_bytes(b"b")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KINDS = {2: "server", 3: "client"}


class Collector:
    """A receiver of OTLP over HTTP. While ``free`` is not set it answers nobody."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.resources: list[dict[str, Any]] = []
        self.free = threading.Event()
        self.free.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.paths.add(self.path)
                collector.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                collector.free.wait()
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[dict[str, Any]]:
        """In the order in which they ended."""
        found = []
        for body in list(self.bodies):
            for each in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(_values(each.resource.attributes))
                found += [_read(span) for scope in each.scope_spans for span in scope.spans]
        return found

    def after(self, count: int) -> list[dict[str, Any]]:
        """Once so many have come. The test's own timeout ends a wait in vain."""
        while len(self.spans()) < count:
            pass
        return self.spans()


def _values(attributes: Any) -> dict[str, Any]:
    def value(found: Any) -> Any:
        kind = found.WhichOneof("value")
        return [value(each) for each in found.array_value.values] if kind == "array_value" else getattr(found, kind)

    return {each.key: value(each.value) for each in attributes}


def _read(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "kind": KINDS[span.kind],
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "failed": span.status.code == 2,
        "took": span.end_time_unix_nano - span.start_time_unix_nano,
        "has": _values(span.attributes),
        "events": len(span.events),
    }


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.free.set()
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], OtlpTelemetry]:
    def to(url: str, **more: str) -> OtlpTelemetry:
        for name, value in ({"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "20"} | more).items():
            monkeypatch.setenv(name, value)
        found = telemetry_of()
        assert found is not None
        return found

    return to


@pytest.fixture
def home(tmp_path: Path, collector: Collector, sending: Callable[[str], OtlpTelemetry]) -> Iterator[Installation]:
    with installed(tmp_path, telemetry=sending(collector.url)) as found:
        yield found


def test_a_request_is_a_span_of_the_clients_trace_and_vllm_a_child(home: Installation, collector: Collector) -> None:
    live = home.promote("a")
    answer = home.ask(
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "baggage": "who=me"},
        max_tokens=20,
        seed=7,
    )
    call, request = collector.after(2)
    assert collector.paths == {"/v1/traces"}
    assert (request["name"], request["kind"], request["parent"]) == ("chat billing", "server", PARENT)
    assert (call["name"], call["kind"], call["parent"]) == (f"chat {A}", "client", request["id"])
    assert {request["trace"], call["trace"]} == {TRACE}
    assert not request["failed"]
    assert request["took"] >= call["took"] > 0
    asked = home.parts.server.headers[-1]
    assert asked["traceparent"] == f"00-{TRACE}-{call['id']}-01"
    assert asked["tracestate"] == "vendor=1"
    assert "baggage" not in asked
    trace_id = answer.json()["id"]
    assert request["has"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "assay",
        "gen_ai.request.model": "billing",
        "gen_ai.request.max_tokens": 20,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stream": False,
        "gen_ai.response.id": trace_id,
        "gen_ai.response.model": A,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "http.response.status_code": 200,
        "assay.trace_id": trace_id,
        "assay.route": "champion",
        "assay.release": live,
        "assay.reason": "",
    }
    assert call["has"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": A,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
    }
    assert collector.resources[0]["service.name"] == "assay-gateway"


def test_the_names_are_those_of_the_conventions(home: Installation, collector: Collector) -> None:
    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    home.promote("a")
    home.ask(stream=True, max_tokens=20, top_p=0.9, seed=1, presence_penalty=0.1, frequency_penalty=0.1)
    call, request = collector.after(2)
    names = {name for name in request["has"] | call["has"] if name.startswith("gen_ai.")}
    assert names <= known
    assert len(names) == 16
    assert 0 < request["has"]["gen_ai.response.time_to_first_chunk"] * 1e9 <= request["took"]


@pytest.mark.parametrize("stream", [False, True])
def test_who_could_not_answer_is_a_child_of_its_own(home: Installation, collector: Collector, stream: bool) -> None:
    home.promote("a")
    home.parts.server.broken.add(served_name(A))
    assert home.ask(stream=stream).headers["x-assay-route"] == "base"
    failed, call, request = collector.after(3)
    assert {failed["parent"], call["parent"]} == {request["id"]}
    assert (failed["failed"], failed["has"]["error.type"]) == (True, "ServerFailed")
    assert (call["failed"], request["failed"]) == (False, False)
    assert (request["has"]["assay.route"], request["has"]["assay.release"]) == ("base", "")
    assert "could not answer" in request["has"]["assay.reason"]


def test_errors_are_named_as_the_client_was_told(home: Installation, collector: Collector) -> None:
    home.promote("a")
    home.ask(home.of("assay-stranger"))
    home.ask(temperature=9)
    home.ask(messages=[{"role": "user", "content": "too long"}])
    home.parts.server.cuts = 1
    home.ask(response_format={"type": "json_object"})
    home.parts.server.breaks = 1
    home.ask(stream=True)
    ended = [span for span in collector.after(8) if span["kind"] == "server"]
    told = [(each["name"], each["has"]["error.type"], each["has"]["http.response.status_code"]) for each in ended]
    assert told == [
        ("chat", "invalid_api_key", 401),
        ("chat billing", "invalid_request", 400),
        ("chat billing", "invalid_request", 400),
        ("chat billing", "answer_truncated", 422),
        ("chat billing", "cut_off", 502),
    ]
    assert [each["failed"] for each in ended] == [False, False, False, False, True]
    assert ended[3]["has"]["gen_ai.response.finish_reasons"] == ["length"]


def test_no_text_of_a_client_or_an_answer_goes_out(home: Installation, collector: Collector) -> None:
    home.promote("a")
    said = [{"role": "user", "content": "where is my parcel"}]
    home.ask(messages=said, user="parcel-mum", stop=["parcel"])
    home.ask(messages=said, stream=True)
    home.ask(model="parcel")
    home.ask(parcel=1)
    home.ask(messages=said, headers={"user-agent": "parcel"})
    assert collector.after(8)
    sent = b"".join(collector.bodies)
    assert b"parcel" not in sent
    assert json.dumps(words(served_name(A))).encode()[1:-1] not in sent
    assert {span["events"] for span in collector.spans()} == {0}


def test_a_traceparent_that_is_none_begins_a_trace_of_our_own(home: Installation, collector: Collector) -> None:
    home.promote("a")
    assert home.ask(headers={"traceparent": "00-nonsense", "tracestate": "a"}).status_code == 200
    assert {span["trace"] for span in collector.after(2)} != {TRACE}
    assert [span["parent"] for span in collector.spans() if span["kind"] == "server"] == [""]


def test_whoever_named_the_service_keeps_the_name(
    collector: Collector, sending: Callable[..., OtlpTelemetry], tmp_path: Path
) -> None:
    found = sending(collector.url, OTEL_SERVICE_NAME="bills", OTEL_RESOURCE_ATTRIBUTES="region=eu")
    with installed(tmp_path, telemetry=found) as home:
        home.ask(home.of("assay-stranger"))
        assert collector.after(1)
    assert collector.resources[0]["service.name"] == "bills"
    assert collector.resources[0]["region"] == "eu"


def test_the_last_spans_arrive_when_the_gateway_ends(
    collector: Collector, sending: Callable[..., OtlpTelemetry], tmp_path: Path
) -> None:
    with installed(tmp_path, telemetry=sending(collector.url, OTEL_BSP_SCHEDULE_DELAY="3600000")) as home:
        home.ask()
    assert len(collector.spans()) == 2


def test_without_an_endpoint_there_are_no_spans_and_no_traceparent_goes_on(tmp_path: Path) -> None:
    assert telemetry_of({}) is None
    assert telemetry_of({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_SERVICE_NAME": "bills"}) is None
    with installed(tmp_path) as home:
        home.promote("a")
        assert home.ask(headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}).status_code == 200
        assert "traceparent" not in home.parts.server.headers[-1]


@pytest.mark.parametrize("how", ["nobody listens", "nobody answers"])
def test_a_dead_collector_costs_no_answer_and_few_lines(
    how: str,
    collector: Collector,
    sending: Callable[..., OtlpTelemetry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(telemetry, "CLOSE_S", 0.5)
    libraries = [logging.getLogger(name) for name in telemetry.LIBRARIES]
    for library in libraries:
        monkeypatch.setattr(library, "filters", [])
    collector.free.clear()
    url = collector.url if how == "nobody answers" else f"http://127.0.0.1:{free_ports(1)[0]}"
    few = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2", "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
    with caplog.at_level(logging.INFO), installed(tmp_path, telemetry=sending(url, **few)) as home:
        home.promote("a")
        assert {home.ask(stream=bool(count % 2)).status_code for count in range(20)} == {200}
        assert home.load()["in_flight"] == 0
        for library in libraries:
            for count in range(50):
                library.error("and once more, %d", count)
    lines = [each for each in caplog.records if each.name.startswith("opentelemetry")]
    assert 1 <= len(lines) <= 2, [each.getMessage() for each in lines]
    assert not collector.free.is_set(), "the gateway ended, and the collector had not answered"


@pytest.mark.timeout(20)
def test_the_end_does_not_wait_for_a_collector_that_does_not_answer(
    collector: Collector, sending: Callable[..., OtlpTelemetry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK by itself would wait half a minute."""
    monkeypatch.setattr(telemetry, "CLOSE_S", 0.1)
    collector.free.clear()
    found = sending(collector.url, OTEL_EXPORTER_OTLP_TIMEOUT="600")
    found.tracer.start_span("last").end()
    found.close()
    assert not collector.free.is_set()


def test_a_wrong_variable_costs_the_spans_and_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    assert telemetry_of() is None
    assert "an OTEL_* variable is wrong (max_export_batch_size" in caplog.text


def test_a_span_ends_with_what_it_was_asked_in(home: Installation, collector: Collector) -> None:
    """A stream's lasts until its end."""
    home.promote("a")
    body = {"model": "billing", "messages": HELLO, "stream": True}
    home.parts.server.free.clear()
    with home.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(lines := answer.iter_lines())
        home.ask(home.of("assay-stranger"))
        assert [span["name"] for span in collector.after(1)] == ["chat"]
        home.parts.server.free.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert [span["name"] for span in collector.after(3)] == ["chat", f"chat {A}", "chat billing"]
