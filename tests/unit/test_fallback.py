"""A release that cannot answer: who answers instead, what is said of it, and that it is not asked again and again."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.traces import Trace
from evals.answers import words
from pipelines.stages.release.rollout import First, first_answers
from pipelines.stages.serve.breaker import FAILURES, REST
from pipelines.stages.serve.routes import challenging, share_traffic
from resources.adapters import served_name
from tests.support.gateway import Clock, Installation, installed
from tests.support.ports import free_ports
from tests.support.serving import chain

A, B = sha256_bytes(b"a"), sha256_bytes(b"b")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Iterator[Installation]:
    with installed(tmp_path, clock=clock) as found:
        yield found


def fails(home: Installation, weights: Digest, how: str) -> None:
    """``refused`` fails verification; ``broken`` fails inside vLLM."""
    if how == "refused":
        home.parts.server.refuses.add(weights)
        home.parts.server.unload(weights)
    else:
        home.parts.server.broken.add(served_name(weights))


def said(answer: httpx.Response) -> tuple[str, dict[str, str | None]]:
    """Text and provenance of an answer, or of a whole stream."""
    assert answer.status_code == 200, answer.text
    if answer.headers["content-type"] == "application/json":
        body = answer.json()
        return body["choices"][0]["message"]["content"], body["assay"]
    events = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"]), chunks[0]["assay"]


def asked(home: Installation, weights: Digest) -> int:
    """How often it was tried: loaded, or asked."""
    server = home.parts.server
    return server.tries[weights] + [body["model"] for body in server.asked].count(served_name(weights))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["refused", "broken"])
def test_the_base_answers_for_a_champion_that_cannot_and_says_so(home: Installation, how: str, stream: bool) -> None:
    fails(home, A, how)
    live = home.release("a")
    chain(home.parts, home.product, live)
    answer = home.ask(stream=stream)
    text, provenance = said(answer)
    assert text == words("adapter-zero")
    assert (provenance["route"], provenance["release"], provenance["adapter"]) == ("base", None, None)
    why = "trained on another base" if how == "refused" else "the model server failed"
    assert f"release {live} could not answer" in str(provenance["reason"])
    assert why in str(provenance["reason"])
    assert (answer.headers["x-assay-route"], answer.headers["x-assay-release"]) == ("base", "none")
    trace = home.trace(answer.headers["x-assay-trace-id"])
    assert (trace.status, trace.route, trace.release, trace.failed) == (200, "base", None, (live,))
    assert trace.reason == provenance["reason"]
    assert [(each.answers, each.failed) for each in home.parts.traces.saw("billing", live, trace.time)] == [(0, 1)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("how", "status"), [("refused", 503), ("broken", 502)])
def test_nobody_answers_where_the_base_may_not(tmp_path: Path, how: str, status: int, stream: bool) -> None:
    with installed(tmp_path, base_as_fallback=False) as home:
        fails(home, A, how)
        live = home.release("a")
        chain(home.parts, home.product, live)
        answer = home.ask(stream=stream)
        assert answer.status_code == status
        trace = home.trace(answer.headers["x-assay-trace-id"])
        assert (trace.status, trace.release, trace.failed) == (status, live, ())
        assert (served_name(A) in home.parts.server.loaded()) == (how == "broken")


def shared(home: Installation, rival: Digest) -> list[httpx.Response]:
    """Answers to 40 people while half of them are the challenger's."""
    with challenging(home.parts, home.product, rival):
        share_traffic(home.parts, home.product, rival, 0.5, seconds=600)
        return [home.ask(user=f"user {number}", stream=number % 2 == 0) for number in range(40)]


def traces(home: Installation, answers: list[httpx.Response]) -> list[Trace]:
    return [home.trace(answer.headers["x-assay-trace-id"]) for answer in answers]


@pytest.mark.parametrize("how", ["refused", "broken"])
def test_the_champion_answers_for_a_challenger_against_which_it_counts(home: Installation, how: str) -> None:
    live, rival = home.promote("a"), home.release("b")
    fails(home, B, how)
    answers = shared(home, rival)
    assert {said(answer)[0] for answer in answers} == {words(served_name(A))}
    assert {(said(a)[1]["route"], said(a)[1]["release"]) for a in answers} == {("champion", live)}
    found = traces(home, answers)
    firsts = first_answers(found, rival, live, in_time_ms=60_000)
    failed = [trace.failed == (rival,) for trace in found]
    assert [first.challenger for first in firsts] == failed
    assert 0 < sum(failed) < len(failed)
    assert all(first.good["answered"] == 0 for first in firsts if first.challenger)
    assert all(first.good["answered"] == 1 for first in firsts if not first.challenger)
    assert asked(home, B) <= 2 * FAILURES < sum(failed), "one that is not loaded is asked, then loaded"


def test_the_base_answers_where_neither_can(home: Installation) -> None:
    live, rival = home.promote("a"), home.release("b")
    for weights in (A, B):
        fails(home, weights, "broken")
    answers = shared(home, rival)
    assert {said(answer)[0] for answer in answers} == {words("adapter-zero")}
    found = traces(home, answers)
    assert {trace.failed for trace in found} == {(live,), (rival, live)}
    assert all(release in trace.reason for trace in found for release in trace.failed)
    firsts = first_answers(found, rival, live, in_time_ms=60_000)
    assert {first.challenger for first in firsts} == {True, False}
    assert {first.good["answered"] for first in firsts} == {0.0}


def test_the_base_that_answers_for_a_challenger_without_a_champion_is_not_its_answer(home: Installation) -> None:
    rival = home.release("b")
    fails(home, B, "broken")
    answers = shared(home, rival)
    assert {said(answer)[0] for answer in answers} == {words("adapter-zero")}
    firsts = first_answers(traces(home, answers), rival, None, in_time_ms=60_000)
    assert First(True, {"answered": 0.0}) in firsts
    assert all(first.good["answered"] == (not first.challenger) for first in firsts)


def test_nobody_answers_for_a_challenger_that_the_operator_asked_for(home: Installation) -> None:
    home.promote("a")
    rival = home.release("b")
    fails(home, B, "broken")
    with challenging(home.parts, home.product, rival):
        assert home.ask(home.operator, headers={"x-assay-challenger": rival}).status_code == 502


@pytest.mark.parametrize(("how", "base_as_fallback"), [("refused", True), ("refused", False), ("broken", True)])
def test_a_dead_adapter_rests_and_is_tried_again(
    tmp_path: Path, clock: Clock, how: str, base_as_fallback: bool
) -> None:
    """What fails inside vLLM rests only where another one answers: else it may be vLLM's own fault."""
    with installed(tmp_path, clock=clock, base_as_fallback=base_as_fallback) as home:
        live = home.promote("a")
        assert home.ask().headers["x-assay-release"] == live
        fails(home, A, how)
        before = asked(home, A)
        statuses = {home.ask().status_code for _ in range(FAILURES + 5)}
        assert statuses == ({200} if base_as_fallback else {503})
        resting = asked(home, A)
        tries = 2 if how == "refused" else 1  # asked, then loaded
        assert resting - before <= FAILURES * tries
        assert home.load()["resting"] == [A]
        clock.forward(REST.total_seconds())
        for _ in range(5):
            home.ask()
        assert asked(home, A) - resting <= tries
        home.parts.server.refuses.clear()
        home.parts.server.broken.clear()
        assert home.ask().status_code == next(iter(statuses)), "it still rests"
        clock.forward(REST.total_seconds())
        assert [home.ask().headers["x-assay-release"] for _ in range(3)] == [live] * 3
        assert home.load()["resting"] == []


def test_one_failure_in_between_opens_no_breaker(home: Installation) -> None:
    live = home.promote("a")
    for _ in range(FAILURES):
        fails(home, A, "broken")
        assert home.ask().headers["x-assay-release"] == "none"
        home.parts.server.broken.clear()
        assert home.ask().headers["x-assay-release"] == live


def test_a_server_that_is_down_is_503_and_no_adapters_fault(home: Installation) -> None:
    live = home.promote("a")
    assert home.ask().status_code == 200
    port = home.parts.server.port
    home.parts.server.port = free_ports(1)[0]
    for _ in range(FAILURES + 1):
        answer = home.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert home.trace(answer.headers["x-assay-trace-id"]).failed == ()
    home.parts.server.port = port
    assert home.ask().headers["x-assay-release"] == live


def test_a_server_that_fails_everybody_is_502_and_no_adapters_fault(home: Installation) -> None:
    live = home.promote("a")
    home.parts.server.broken |= {served_name(A), "adapter-zero"}
    for _ in range(FAILURES + 1):
        answer = home.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_server_failed")
    home.parts.server.broken.clear()
    assert home.ask().headers["x-assay-release"] == live


def test_a_release_that_was_replaced_meanwhile_is_answered_for_by_the_new_one(home: Installation) -> None:
    home.promote("a")
    new = home.release("b")
    fails(home, A, "refused")
    home.parts.server.on_refusal = lambda: chain(home.parts, home.product, new)
    text, provenance = said(home.ask())
    assert text == words(served_name(B))
    assert (provenance["route"], provenance["release"]) == ("champion", new)
