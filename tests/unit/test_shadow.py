"""Shadowing: another release answers live requests too, and no client can notice."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import AssayError, BadInput, Missing, Refused
from data_contracts.traces import ShadowTrace
from evals.answers import words
from pipelines.stages.release.rollout import first_answers
from pipelines.stages.release.shadow import begin_shadow, end_shadow
from pipelines.stages.serve.gateway import Gateway
from pipelines.stages.serve.mirror import IN_FLIGHT, Live
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.relay import Answered
from pipelines.stages.serve.routes import challenging, read_routes, routes_file, shadow_of, share_traffic
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.shadow import beside, shadowing
from pipelines.stages.signals.traces import traffic
from resources.adapters import served_name
from tests.support.gateway import HELLO, Clock, Installation, installed
from tests.support.serving import chain

BEGAN = Clock().time


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as found:
        yield found


def begun(home: Installation, share: float = 1.0) -> tuple[Digest, Digest]:
    """(live, shadow): adapters "a" and "b"."""
    live, shadow = home.promote("a"), home.release("b")
    begin_shadow(home.parts, home.product, shadow, share, actor="test")
    return live, shadow


def outcomes(home: Installation) -> dict[str, float]:
    return {
        sample.labels["outcome"]: sample.value
        for family in text_string_to_metric_families(home.scraped())
        for sample in family.samples
        if sample.name == "assay_shadow_requests_total"
    }


def until(found: Callable[[], object], wanted: object) -> None:
    """The mirror goes its own way: look until it has come there. The test's own timeout ends a wait in vain."""
    while found() != wanted:
        pass


def shadows(home: Installation) -> list[ShadowTrace]:
    home.parts.traces.flush()
    return home.parts.traces.shadows(home.product.name, BEGAN)


def asked(home: Installation, seed: str) -> list[dict[str, Any]]:
    name = served_name(sha256_bytes(seed.encode()))
    return [body for body in home.parts.server.asked if body["model"] == name]


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_gets_the_live_answer_and_the_shadow_is_compared_with_it(home: Installation, stream: bool) -> None:
    live, shadow = begun(home)
    answer = home.ask(stream=stream)
    assert answer.headers["x-assay-release"] == live
    assert served_name(sha256_bytes(b"b")) not in answer.text
    until(lambda: outcomes(home), {"answered": 1})
    (found,) = shadows(home)
    assert (found.trace_id, found.live, found.shadow) == (answer.headers["x-assay-trace-id"], live, shadow)
    assert (found.status, found.live_json_valid, found.json_valid) == (200, True, True)
    assert found.equal is False, "each names its adapter"
    assert found.live_ms > 0
    assert found.ms is not None
    (body,) = asked(home, "b")
    assert body["messages"] == HELLO
    assert not body["stream"]


def test_equal_answers_are_told_from_others_unless_they_were_drawn(home: Installation) -> None:
    begun(home)
    choice = {"index": 0, "message": {"role": "assistant", "content": "the same"}, "finish_reason": "stop"}
    home.parts.server.garbage = json.dumps({"choices": [choice]})
    home.ask()
    until(lambda: outcomes(home), {"answered": 1})
    home.ask(temperature=0.7)
    until(lambda: outcomes(home), {"answered": 2})
    assert [(each.equal, each.json_valid) for each in shadows(home)] == [(True, False), (None, False)]


def test_no_text_is_kept(home: Installation) -> None:
    begun(home)
    home.ask(messages=[{"role": "user", "content": "where is my parcel"}])
    until(lambda: outcomes(home), {"answered": 1})
    shadows(home)
    kept = b"".join(path.read_bytes() for path in home.parts.home.glob("traces.sqlite*"))
    assert b"parcel" not in kept
    for seed in (b"a", b"b"):
        assert json.dumps(words(served_name(sha256_bytes(seed)))).encode()[1:-1] not in kept


def test_no_client_waits_for_a_shadow_and_few_are_in_flight(home: Installation) -> None:
    begun(home)
    slow = served_name(sha256_bytes(b"b"))
    home.parts.server.slow.add(slow)
    assert {home.ask().status_code for _ in range(IN_FLIGHT + 3)} == {200}
    assert outcomes(home) == {"dropped": 3}
    assert home.load()["in_flight"] == 0, "a shadow takes no client's place"
    home.parts.server.slow.clear()
    until(lambda: outcomes(home), {"dropped": 3, "answered": IN_FLIGHT})
    assert len(shadows(home)) == IN_FLIGHT


def test_nothing_is_mirrored_while_clients_wait(tmp_path: Path) -> None:
    with installed(tmp_path, "gateway: {in_flight: 1}") as home:
        begun(home)
        body = {"model": home.product.name, "messages": HELLO, "stream": True}
        home.parts.server.free.clear()
        with home.client.stream("POST", "/v1/chat/completions", json=body) as first:
            next(lines := first.iter_lines())
            with home.of(home.client.headers["authorization"].removeprefix("Bearer ")) as other:
                loop = asyncio.new_event_loop()
                waiting = loop.run_in_executor(None, lambda: home.ask(other))
                until(lambda: home.load()["queued"], 1)
                home.parts.server.free.set()
                assert [line for line in lines if line][-1] == "data: [DONE]"
                assert loop.run_until_complete(waiting).status_code == 200
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
        until(lambda: outcomes(home), {"dropped": 1, "answered": 1})


def test_a_shadow_that_fails_touches_no_client_and_no_breaker_of_theirs(home: Installation) -> None:
    _, shadow = begun(home)
    home.parts.server.broken.add(served_name(sha256_bytes(b"b")))
    for count in range(1, 6):
        assert home.ask().status_code == 200
        until(lambda count=count: outcomes(home), {"failed": count})
    assert len(asked(home, "b")) < 5, "it rests after some failures"
    assert home.load()["resting"] == []
    assert {(each.status, each.equal, each.json_valid, each.ms) for each in shadows(home)} == {(502, None, None, None)}
    with challenging(home.parts, home.product, shadow):
        home.parts.server.broken.clear()
        share_traffic(home.parts, home.product, shadow, 1.0, seconds=60)
        assert home.ask(user="somebody").headers["x-assay-release"] == shadow
    assert outcomes(home) == {"failed": 5}, "who answered is not asked again"


def test_it_counts_for_nobodys_limits_and_feeds_no_other_reader_of_traces(home: Installation) -> None:
    live, shadow = begun(home)
    answer = home.ask()
    until(lambda: outcomes(home), {"answered": 1})
    used = home.load()["tenants"]["acme"]["used"]
    assert used == {"requests_a_minute": 1, "in_flight": 0} | dict.fromkeys(
        ("tokens_a_minute", "tokens_a_day", "tokens_a_month"), 10
    )
    shadows(home)
    traces, name = home.parts.traces, home.product.name
    (use,) = traces.usage(None, None)
    assert (use.tenant, use.requests, use.prompt_tokens + use.completion_tokens) == ("acme", 1, 10)
    assert [each.trace_id for each in traces.recent(name, 10)] == [answer.json()["id"]]
    assert first_answers(traces.since(name, BEGAN), shadow, live, 1e9) == []
    assert traces.saw(name, shadow, BEGAN) == []
    policy = load_policy().model_copy(update={"window": 1, "grace_seconds": 0})
    found = traffic(home.parts, home.product, policy)
    assert (found.release, found.reference is not None, found.current) == (live, True, ())
    text = home.scraped()
    assert 'assay_tokens_total{direction="in",product="billing",tenant="acme"} 7.0' in text
    assert 'assay_requests_total{product="billing",route="challenger"' not in text


def test_the_operators_own_requests_are_not_mirrored(home: Installation) -> None:
    begun(home)
    home.ask(home.operator)
    own = set()
    for count in (1, 2):
        own.add(home.ask().json()["id"])
        until(lambda count=count: outcomes(home), {"answered": count})
    assert {each.trace_id for each in shadows(home)} == own


def test_switched_off_it_stops_at_once(home: Installation) -> None:
    begun(home)
    home.parts.server.slow.add(served_name(sha256_bytes(b"b")))
    home.ask()
    end_shadow(home.parts, home.product, actor="test")
    until(lambda: outcomes(home), {"stopped": 1})
    home.parts.server.slow.clear()
    home.ask()
    assert shadows(home) == []
    begin_shadow(home.parts, home.product, home.release("c"), 1.0, actor="test")
    home.ask()
    until(lambda: outcomes(home), {"stopped": 1, "answered": 1})
    assert len(asked(home, "b")) == 1
    end_shadow(home.parts, home.product, actor="test")
    with pytest.raises(Refused, match="nothing to switch off"):
        end_shadow(home.parts, home.product, actor="test")


def test_the_gateway_does_not_wait_for_shadows_when_it_ends(home: Installation) -> None:
    begun(home)
    server = home.parts.server
    server.slow.add(served_name(sha256_bytes(b"b")))

    async def ends() -> set[object]:
        gateway = Gateway(home.parts, lambda: [home.product], Clock())
        product, route = gateway.view.route(home.product.name)
        mirrors = gateway.mirror.draw(product, route)
        assert mirrors is not None
        trace = home.trace(home.ask(home.operator).json()["id"])
        request = {"messages": HELLO, "stream": False, "temperature": 0.0}
        mirrors(Live(request, trace, Answered([]), 1.0))
        while not asked(home, "b"):
            await asyncio.sleep(0)
        await gateway.close()
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(ends()) == set()
    server.slow.clear()


def test_who_may_be_a_shadow(home: Installation) -> None:
    first = home.release("a")
    home.parts.log.append("canary.recorded", home.product.name, {"release": first, "outcome": "pass"}, actor="test")
    chain(home.parts, home.product, first)
    live = home.promote("b")
    other = home.release("c")

    def begin(release: Digest, share: float = 0.5) -> None:
        begin_shadow(home.parts, home.product, release, share, actor="test")

    for release in (live, sha256_bytes(b"never registered")):
        with pytest.raises(Refused, match="cannot be a shadow of billing"):
            begin(release)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(BadInput, match="the share"):
            begin(other, share)
    home.parts.server.refuses.add(sha256_bytes(b"c"))
    with pytest.raises(Refused, match="trained on another base"):
        begin(other)
    home.parts.server.refuses.clear()
    begin(other)
    begin(first)  # what a rollback would lead to
    route = read_routes(home.parts.home).of(home.product.name)
    assert route is not None
    assert (route.champion, route.shadow, route.shadow_share) == (live, first, 0.5)


@pytest.mark.parametrize("how", ["promoted", "another promoted", "rejected, and approved again", "revoked"])
def test_it_ends_with_what_it_was_begun_for(home: Installation, how: str) -> None:
    _, shadow = begun(home)
    product, body = home.product, {"release": shadow, "environment": home.product.environment}
    if how == "promoted":
        chain(home.parts, product, shadow)
    elif how == "another promoted":
        chain(home.parts, product, home.release("c"))
    elif how == "revoked":
        home.parts.log.append("release.revoked", product.name, body, actor="test")
    else:
        home.parts.log.append("approval.rejected", product.name, body, actor="test")
        home.parts.log.append("approval.accepted", product.name, body, actor="test")
    assert shadow_of(home.parts.log.records(), product.name, product.environment) == (None, 0)
    assert home.ask().status_code == 200
    assert outcomes(home) == {}


def test_a_shadow_written_by_a_foreign_hand_is_asked_nothing_and_reported(home: Installation) -> None:
    live = home.promote("a")
    rival = home.release("b")
    table = json.loads(routes_file(home.parts.home).read_text())
    for route in table["routes"]:
        route.update(shadow=rival, shadow_share=1.0)
    routes_file(home.parts.home).write_text(json.dumps(table))
    assert home.ask().headers["x-assay-release"] == live
    assert outcomes(home) == {}
    reconcile(home.parts, [home.product])
    repaired = [each.body["projection"] for each in home.parts.log.records() if each.event == "projection.repaired"]
    assert repaired == ["shadow"]


def mirrored(**more: Any) -> ShadowTrace:
    ordinary = {
        "trace_id": "chatcmpl-1",
        "time": BEGAN,
        "product": "billing",
        "live": "sha256:" + "1" * 64,
        "shadow": "sha256:" + "2" * 64,
        "status": 200,
        "equal": True,
        "live_json_valid": True,
        "json_valid": True,
        "live_ms": 100,
        "ms": 80,
    }
    return ShadowTrace.model_validate(ordinary | more)


def test_the_comparison_is_of_what_both_answered() -> None:
    failed = mirrored(status=502, equal=None, json_valid=None, ms=None, live_json_valid=False, live_ms=9000)
    (found,) = beside([mirrored(), mirrored(equal=False, json_valid=False, ms=90, live_ms=110), failed])
    assert (found.mirrored, found.failed, found.compared, found.equal) == (3, 1, 2, 1)
    assert found.json_valid == (1.0, 0.5)
    assert found.median_ms == (105.0, 85.0)
    (none,) = beside([failed])
    assert (none.failed, none.json_valid, none.median_ms) == (1, None, None)
    assert [each.live for each in beside([mirrored(), mirrored(live=None)])] == [None, mirrored().live]


def test_the_command_begins_compares_and_ends(
    home: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines import shadow_cli

    def say(**options: Any) -> str:
        given = {"release": "", "share": None, "off": False, "as_json": False} | options
        shadow_cli.shadow(home.product.name, **given)
        return capsys.readouterr().out

    class Line:
        product = staticmethod(lambda name: home.product)
        __getattr__ = staticmethod(lambda name: getattr(home.parts, name))

    monkeypatch.setattr(shadow_cli, "Line", Line)
    live, rival = home.promote("a"), home.release("b")
    with pytest.raises(Missing, match="never had a shadow"):
        say()
    for wrong in ({"release": rival}, {"share": 0.1}, {"release": rival, "share": 0.1, "off": True}):
        with pytest.raises(AssayError, match="give --release with --share"):
            say(**wrong)
    assert f"{rival} is asked 100% (audit record" in say(release=rival[:20], share=1.0)
    home.ask()
    until(lambda: outcomes(home), {"answered": 1})
    shadows(home)
    told = say()
    assert f"{rival} beside {live}" in told
    assert "1 requests mirrored, 0 without an answer" in told
    assert "0 of 1 answers are the same" in told
    assert "JSON objects: 1 live, 1 shadow" in told
    assert "is asked no more" in say(off=True)
    assert "no shadow now" in say()
    assert json.loads(say(as_json=True))["beside"][0]["mirrored"] == 1
    assert shadowing(home.parts, home.product).share == 0


def test_a_share_is_a_share(home: Installation) -> None:
    begun(home, share=0.5)
    for _ in range(40):
        home.ask()
    until(lambda: sum(outcomes(home).values()) == len(asked(home, "b")) + outcomes(home).get("dropped", 0), True)
    assert 5 < sum(outcomes(home).values()) < 35
