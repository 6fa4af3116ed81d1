"""Limits of tenants and of the gateway: what is counted, who is refused, and what they are told."""

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from pipelines.cli import app
from pipelines.recipes.product import ROOT, Serving
from pipelines.stages.serve.limits import Limits, LimitsFile, limits_file, read_limits
from pipelines.stages.serve.tenants import create_key
from pipelines.stages.serve.window import PERIODS, SECONDS, Period, Spent, Window
from tests.support.gateway import Clock, Installation, installed

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)


@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=60),
    limit=st.integers(1, 12),
)
def test_a_window_holds_what_happened_in_the_last_minute_and_says_when_there_is_room(
    steps: list[tuple[int, int]], limit: int
) -> None:
    window, now, events = Window(), 0, []
    for passed, amount in steps:
        now += passed
        window.add(now, amount)
        events.append((now, amount))

        def total(at: float, happened: list[tuple[int, int]] = events) -> int:
            return sum(each for time, each in happened if at - time < SECONDS)

        assert window.total(now) == total(now)
        wait = window.wait(now, limit)
        assert total(now + wait) < limit
        assert wait == 0 or total(now + wait - 0.5) >= limit


@pytest.mark.parametrize(("period", "left"), [("day", 12 * 3600), ("month", 12 * 3600)])
def test_a_budget_begins_anew_with_the_day_and_the_month(period: Period, left: int) -> None:
    spent = Spent(period, NOON)
    spent.add(NOON, 5)
    assert (spent.tokens(NOON), spent.wait(NOON)) == (5, left)
    next_year = NOON + timedelta(seconds=left)
    assert spent.tokens(next_year - timedelta(seconds=1)) == 5
    assert spent.tokens(next_year) == 0
    assert spent.wait(next_year) == (24 * 3600 if period == "day" else 31 * 24 * 3600)


def test_nothing_is_limited_without_a_file_but_the_gateway(tmp_path: Path) -> None:
    limits = read_limits(limits_file(tmp_path))
    assert limits == Limits()
    assert set(limits.of("acme").payload().values()) == {None}
    assert limits.gateway.in_flight > 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("tenants: {acme: {request_a_minute: 3}}", r"acme.request_a_minute"),
        ("tenants: {acme: {in_flight: 0}}", r"acme.in_flight"),
        ("gateway: {queue: -1}", r"gateway.queue"),
        ("tenants: [", "limits.yaml"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    limits_file(tmp_path).write_text(text)
    with pytest.raises(BadInput, match=named):
        LimitsFile(tmp_path)


def test_a_changed_file_counts_at_once_and_a_broken_one_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = LimitsFile(tmp_path)
    for text, most in (
        ("default: {in_flight: 1}", 1),
        ("default: {in_flight: none}", 1),
        ("default: {in_flight: 3}", 3),
    ):
        part = tmp_path / "part"
        part.write_text(text)
        part.replace(limits_file(tmp_path))
        assert file.now().of("acme").in_flight == most
    assert "the limits stay as they were" in caplog.text


def refused(answer: httpx.Response, limit: str) -> int:
    """The seconds after which to ask again."""
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], answer.headers["x-assay-limit"]) == (429, "rate_limit_error", limit)
    assert limit in error["message"]
    return int(answer.headers["retry-after"])


def test_a_tenant_over_its_requests_a_minute_is_refused_and_nobody_else(tmp_path: Path) -> None:
    clock = Clock()
    with installed(tmp_path, "tenants: {acme: {requests_a_minute: 2}}", clock) as home:
        assert home.ask().status_code == 200
        clock.forward(20)
        assert home.ask().status_code == 200
        answer = home.ask()
        assert refused(answer, "requests_a_minute") == 40
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        globex = home.of(create_key(home.parts.home, "globex"))
        assert home.ask(globex, model="pricing").status_code == 200
        assert home.ask(home.operator).status_code == 200
        assert len(home.parts.server.asked) == 4
        clock.forward(39)
        assert refused(home.ask(), "requests_a_minute") == 21  # since the operator's request counts too
        clock.forward(21)
        assert home.ask().status_code == 200
        assert home.load()["tenants"]["acme"]["refused"] == {"requests_a_minute": 2}
        home.parts.traces.flush()
        assert {trace.status for trace in home.parts.traces.recent("billing", 99)} == {200}


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_prompts_and_answers_count_and_come_back(tmp_path: Path, stream: bool) -> None:
    clock = Clock()
    with installed(tmp_path, "default: {tokens_a_minute: 11}", clock) as home:
        assert home.ask(stream=stream, max_tokens=5).status_code == 200  # 7 of the prompt, 3 of the answer
        assert home.ask(stream=stream, max_tokens=5).status_code == 200
        assert home.load()["tenants"]["acme"]["used"]["tokens_a_minute"] == 20
        assert refused(home.ask(), "tokens_a_minute") == 60
        clock.forward(60)
        assert home.ask().status_code == 200


@pytest.mark.parametrize("period", PERIODS)
def test_a_budget_survives_a_restart_of_the_gateway(tmp_path: Path, period: Period) -> None:
    clock = Clock()
    limits = f"tenants: {{acme: {{tokens_a_{period}: 20}}}}"
    for _ in range(2):
        with installed(tmp_path, limits, clock) as home:
            assert home.ask().status_code == 200
    with installed(tmp_path, limits, clock) as home:
        answer = home.ask()
        assert refused(answer, f"tokens_a_{period}") == pytest.approx(Spent(period, clock()).wait(clock()), abs=1)
        assert answer.json()["error"]["code"] == "insufficient_quota"
        assert home.parts.server.asked == []
        clock.forward(refused(home.ask(), f"tokens_a_{period}"))
        assert home.ask().status_code == 200


@contextmanager
def held(home: Installation) -> Iterator[ThreadPoolExecutor]:
    """While the block runs, vLLM answers nobody to the end."""
    home.parts.server.free.clear()
    with ThreadPoolExecutor(8) as pool:
        try:
            yield pool
        finally:
            home.parts.server.free.set()


def becomes(home: Installation, **numbers: int) -> None:
    deadline = time.monotonic() + 60
    while (found := {name: home.load()[name] for name in numbers}) != numbers:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def reach_vllm(home: Installation, requests: int) -> None:
    deadline = time.monotonic() + 60
    while (found := len(home.parts.server.asked)) != requests:
        assert found < requests
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tenant_has_so_many_requests_in_flight(tmp_path: Path, stream: bool) -> None:
    with installed(tmp_path, "default: {in_flight: 1}") as home:
        with held(home) as pool:
            first = pool.submit(home.ask, stream=stream)
            becomes(home, in_flight=1)
            assert refused(home.ask(), "in_flight") > 0
        assert first.result().status_code == 200
        assert home.ask().status_code == 200


def test_tokens_that_are_being_written_are_reserved(tmp_path: Path) -> None:
    with installed(tmp_path, "default: {tokens_a_minute: 90}") as home:
        with held(home) as pool:
            first = pool.submit(home.ask)  # at most 96 tokens
            becomes(home, in_flight=1)
            assert refused(home.ask(), "tokens_a_minute") > 0
        assert first.result().status_code == 200
        assert home.ask().status_code == 200, "it needed 10"


def test_what_waits_is_bounded_and_the_operator_does_not_wait(tmp_path: Path) -> None:
    with installed(tmp_path, "gateway: {in_flight: 1, queue: 1, wait_seconds: 600}") as home:
        with held(home) as pool:
            first = pool.submit(home.ask)
            becomes(home, in_flight=1)
            second = pool.submit(home.ask)
            becomes(home, in_flight=1, queued=1)
            answer = home.ask()
            assert refused(answer, "queue") == 5
            assert answer.json()["error"]["code"] == "overloaded"
            probe = pool.submit(home.ask, home.operator)
            becomes(home, in_flight=2, queued=1)
            reach_vllm(home, 2)
        assert [each.result().status_code for each in (first, second, probe)] == [200] * 3
        becomes(home, in_flight=0, queued=0)


def test_nobody_waits_longer_than_the_bound(tmp_path: Path) -> None:
    with installed(tmp_path, "gateway: {in_flight: 1, wait_seconds: 0.05}") as home:
        with held(home) as pool:
            first = pool.submit(home.ask)
            becomes(home, in_flight=1)
            assert refused(home.ask(), "wait_seconds") == 5
        assert first.result().status_code == 200
        assert home.ask().status_code == 200
        assert home.load()["tenants"]["acme"]["used"]["in_flight"] == 0


def test_a_client_that_leaves_while_it_waits_frees_its_place(tmp_path: Path) -> None:
    with installed(tmp_path, "gateway: {in_flight: 1, queue: 1, wait_seconds: 600}") as home:
        with held(home) as pool:
            first = pool.submit(home.ask)
            becomes(home, in_flight=1)
            with pytest.raises(httpx.ReadTimeout):
                home.ask(httpx_timeout=0.2)
            becomes(home, queued=0, left=1)
            third = pool.submit(home.ask)
            becomes(home, queued=1)
        assert [each.result().status_code for each in (first, third)] == [200, 200]
        assert len(home.parts.server.asked) == 2


def test_a_client_that_leaves_a_stream_frees_its_place_and_pays_for_what_it_read(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        body = {"model": home.product.name, "messages": [{"role": "user", "content": "hello"}], "stream": True}
        with held(home):
            with home.client.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = answer.iter_lines()
                assert '"usage"' not in "".join(next(lines) for _ in range(3))
            becomes(home, in_flight=0)
        trace = home.trace(answer.headers["x-assay-trace-id"])
        assert (trace.status, trace.prompt_tokens, trace.completion_tokens) == (499, 7, 1)
        assert home.load()["tenants"]["acme"]["used"]["tokens_a_minute"] == 8


def test_the_load_is_for_the_operator(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        assert home.client.get("/v1/load").status_code == 403
        assert httpx.get(f"{home.url}/v1/load").status_code == 401
        assert home.load()["limits"] == Limits().gateway.payload()


def test_the_files_in_the_documentation_are_valid() -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    serving = [Serving.model_validate(block["serving"]) for block in blocks if "serving" in block]
    (limits,) = (block for block in blocks if "tenants" in block)
    assert serving
    assert Serving() not in serving
    shown = Limits.model_validate(limits)
    assert shown.gateway == Limits().gateway, "the page says that these are what counts without a file"
    assert None not in shown.of("acme").payload().values(), "each limit is shown"


def test_the_command_shows_what_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path))
    limits_file(tmp_path).write_text("tenants: {acme: {in_flight: 3}}")
    shown = json.loads(CliRunner().invoke(app, ["limits"]).stdout)
    assert shown["tenants"] == {"acme": {"in_flight": 3}}
    limits_file(tmp_path).write_text("tenant: {}")
    assert isinstance(CliRunner().invoke(app, ["limits"]).exception, BadInput)
