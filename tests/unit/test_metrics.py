"""What Prometheus reads of the gateway: counted once, labelled by what an operator made, and shown to the operator."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.stages.serve.routes import challenging, routes_file, share_traffic
from tests.support.gateway import HELLO, Installation, installed
from tests.support.ports import free_ports


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as installation:
        yield installation


def samples(home: Installation) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(home.scraped()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(home: Installation, name: str, **labels: str) -> float:
    return sum(number for found, number in samples(home).get(name, []) if labels.items() <= found.items())


def test_answers_are_counted_and_timed(home: Installation) -> None:
    home.promote("a")
    home.ask()
    assert value(home, "assay_requests_total", product="billing", route="champion", status="200") == 1
    assert value(home, "assay_tokens_total", product="billing", tenant="acme", direction="in") == 7
    assert value(home, "assay_tokens_total", product="billing", tenant="acme", direction="out") == 3
    assert value(home, "assay_json_answers_total", product="billing", valid="true") == 1
    assert value(home, "assay_answer_seconds_count", product="billing", route="champion") == 1
    assert value(home, "assay_first_token_seconds_count") == 0, "only a stream has a first token"
    assert value(home, "assay_errors_total") == 0
    streamed = home.ask(stream=True)
    assert value(home, "assay_first_token_seconds_count", product="billing", route="champion") == 1
    assert value(home, "assay_token_seconds_count", product="billing") == 1
    first = value(home, "assay_first_token_seconds_sum")
    trace = home.trace(streamed.headers["x-assay-trace-id"])
    assert trace.first_token_ms == pytest.approx(first * 1000)
    assert 0 < trace.first_token_ms <= trace.latency_ms


def test_requests_in_flight_last_as_long_as_their_streams(home: Installation) -> None:
    home.promote("a")
    body = {"model": "billing", "messages": HELLO, "stream": True}
    home.parts.server.free.clear()
    with home.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(lines := answer.iter_lines())
        assert value(home, "assay_requests_in_flight") == 1
        home.parts.server.free.set()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    home.ask()
    assert value(home, "assay_requests_in_flight") == 0


def test_traces_are_counted_where_they_are_delivered(home: Installation) -> None:
    home.promote("a")
    home.parts.traces.add(home.trace(home.ask().json()["id"]))
    assert home.parts.traces.flush()
    assert value(home, "assay_traces_spooled") == 0
    assert value(home, "assay_traces_total", outcome="stored") == 1
    assert value(home, "assay_traces_total", outcome="duplicate") == 1
    assert value(home, "assay_traces_total", outcome="lost") == value(home, "assay_traces_total", outcome="torn") == 0


def test_refusals_are_known_while_traffic_is_shared(home: Installation) -> None:
    home.promote("a")
    home.ask()
    assert "assay_watched_answers_total" not in samples(home)
    rival = home.release("b")
    with challenging(home.parts, home.product, rival):
        share_traffic(home.parts, home.product, rival, 1.0, seconds=60)
        home.ask(user="somebody")
    assert value(home, "assay_watched_answers_total", route="challenger", refused="false") == 1


def test_what_goes_wrong_is_counted_by_its_code(home: Installation) -> None:
    home.promote("a")
    stranger = home.of("assay-stranger")
    for _ in range(3):
        stranger.get("/v1/models")
    home.ask(stranger)
    home.ask(model="pricing")
    home.ask(temperature="hot " * 100, chat_template="{{ 'mine' }}")
    home.ask(messages=[{"role": "user", "content": "too long"}])
    home.client.get("/wp-admin.php")
    assert value(home, "assay_errors_total", product="", kind="invalid_api_key") == 4
    assert value(home, "assay_errors_total", product="", kind="model_not_found") == 1, "not another's product"
    assert value(home, "assay_errors_total", product="", kind="not_found") == 1
    assert value(home, "assay_errors_total", product="billing", kind="invalid_request") == 2
    assert value(home, "assay_requests_total", product="billing", status="400") == 2
    home.parts.server.breaks = 1
    home.ask(stream=True)
    assert value(home, "assay_errors_total", product="billing", kind="cut_off") == 1
    home.parts.server.cuts = 1
    home.ask(response_format={"type": "json_object"})
    assert value(home, "assay_errors_total", product="billing", kind="answer_truncated") == 1
    assert value(home, "assay_json_answers_total", product="billing", valid="false") == 1
    home.parts.server.port = free_ports(1)[0]
    home.ask()
    assert value(home, "assay_errors_total", product="billing", kind="unavailable") == 1


def test_the_releases_that_answer_now_are_named_and_no_others(home: Installation) -> None:
    def live() -> list[dict[str, str]]:
        return [labels for labels, _ in samples(home).get("assay_release_info", []) if labels["product"] == "billing"]

    own = {"product": "billing", "tenant": "acme"}
    assert live() == [own | {"route": "base", "release": ""}]
    home.promote("a")
    champion = own | {"route": "champion", "release": home.promote("b")}
    assert live() == [champion]
    rival = home.release("c")
    with challenging(home.parts, home.product, rival):
        assert live() == [champion, own | {"route": "challenger", "release": rival}]
    assert live() == [champion]
    log = home.parts.log.path
    log.write_bytes(log.read_bytes().replace(b'"actor":"test"', b'"actor":"evil"', 1))
    routes_file(home.parts.home).touch()
    assert live() == [], "nothing is answered"


def test_nothing_that_a_client_sends_becomes_a_label(home: Installation) -> None:
    home.promote("a")
    words: dict[str, Any] = {"user": "mark-user", "messages": [{"role": "user", "content": "mark-content"}]}
    for more in ({}, {"model": "mark-model"}, {"mark-field": 1}, {"stop": "mark-stop"}, {"stream": True}):
        answer = home.ask(**words | more, headers={"x-assay-challenger": "mark-header"} if "stop" in more else {})
    home.client.get("/mark-path")
    home.client.request("MARK", "/v1/models")
    scraped = home.scraped()
    assert "mark" not in scraped.lower()
    assert answer.headers["x-assay-trace-id"] not in scraped


def test_only_the_operator_scrapes(home: Installation) -> None:
    for client, status in ((httpx.Client(base_url=home.url), 401), (home.client, 403), (home.operator, 200)):
        with client:
            answer = client.get("/metrics")
        assert answer.status_code == status
        assert ("assay_requests" in answer.text) == (status == 200)
        assert answer.headers["content-type"].startswith("text/plain" if status == 200 else "application/json")
