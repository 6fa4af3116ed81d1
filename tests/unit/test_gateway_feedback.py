"""POST /v1/feedback and the sample of answers: what is taken, from whom, and how it lies on the disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from data_contracts.errors import Unavailable
from data_contracts.feedback import Sealed
from pipelines.recipes.product import Keep
from pipelines.stages.serve.raw_text import RawExchange, RawFeedback, opened
from pipelines.stages.serve.sampler import in_sample
from pipelines.stages.serve.tenants import create_key
from tests.support.gateway import HELLO, Installation, installed

NOBODYS = "chatcmpl-" + "0" * 32


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path, keep=Keep(share=1.0)) as installation:
        installation.promote("a")
        yield installation


def say(home: Installation, client: httpx.Client | None = None, **said: Any) -> httpx.Response:
    return (client or home.client).post("/v1/feedback", json=said)


def waiting(home: Installation, kind: str) -> list[Sealed]:
    assert home.parts.feedback.flush()
    return [each for each in home.parts.feedback.sealed(None, 99) if each.kind == kind]


def test_feedback_is_taken_sealed_and_counted_once(home: Installation) -> None:
    trace = home.ask().json()["id"]
    said = {"trace_id": trace, "rating": "bad", "correction": "on the 2nd", "user": "ann@acme.com", "id": "1"}
    first, second = say(home, **said), say(home, **said)
    assert (first.status_code, second.json()) == (202, first.json())
    (sealed,) = waiting(home, "feedback")
    assert sealed.name == first.json()["id"]
    assert (sealed.tenant, sealed.product) == ("acme", "billing")
    assert opened(home.parts.tenant_keys, sealed, RawFeedback) == RawFeedback(
        trace_id=trace, by="user", rating="bad", correction="on the 2nd", label=None, user="ann@acme.com"
    )
    assert say(home, trace_id=trace, rating="good").json()["id"] != first.json()["id"]
    assert 'assay_feedback_total{product="billing",says="correction"} 2.0' in home.scraped()


def test_no_word_lies_open_on_the_disk(home: Installation) -> None:
    trace = home.ask(messages=[{"role": "user", "content": "my secret question"}], user="ann@acme.com").json()["id"]
    assert say(home, trace_id=trace, correction="my secret correction", user="ann@acme.com").status_code == 202
    wait_until_sealed(home, 1)
    assert len(waiting(home, "feedback")) == 1
    files = [path for path in home.parts.home.rglob("*") if path.is_file()]
    assert any(path.name.startswith("feedback.sqlite") for path in files)
    assert [path for path in files if b"secret" in (data := path.read_bytes()) or b"ann@acme" in data] == []


def test_an_answer_of_another_tenant_is_like_one_that_never_was(home: Installation) -> None:
    theirs = home.of(create_key(home.parts.home, "globex"))
    trace = home.ask().json()["id"]
    foreign, unknown = (
        say(home, theirs, trace_id=trace, rating="bad"),
        say(home, theirs, trace_id=NOBODYS, rating="bad"),
    )
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.json() == unknown.json()
    assert waiting(home, "feedback") == []


def test_while_the_store_is_away_feedback_is_taken_of_all_answers_alike(
    home: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = home.of(create_key(home.parts.home, "globex"))
    trace = home.ask().json()["id"]

    def away(trace_id: str) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(home.parts.traces, "get", away)
    for client in (home.client, theirs):
        assert say(home, client, trace_id=trace, rating="bad").status_code == 202
    assert say(home, home.operator, trace_id=trace, rating="bad").status_code == 503
    assert {(each.tenant, each.product) for each in waiting(home, "feedback")} == {("acme", ""), ("globex", "")}


def test_labels_are_for_the_operators_key(home: Installation) -> None:
    trace = home.ask().json()["id"]
    assert say(home, trace_id=trace, label="invoices").status_code == 403
    assert say(home, home.operator, trace_id=trace, label="invoices").status_code == 202
    (sealed,) = waiting(home, "feedback")
    raw = opened(home.parts.tenant_keys, sealed, RawFeedback)
    assert (raw.by, raw.label, sealed.tenant) == ("reviewer", "invoices", "acme")


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"rating": "bad"}, "trace_id"),
        ({"trace_id": "1", "rating": "bad"}, "trace_id must be"),
        ({"trace_id": NOBODYS}, "nothing is said"),
        ({"trace_id": NOBODYS, "rating": "meh"}, "rating must be"),
        ({"trace_id": NOBODYS, "rating": None}, "nothing is said"),
        ({"trace_id": NOBODYS, "correction": ""}, "correction must be"),
        ({"trace_id": NOBODYS, "correction": "x" * 20_001}, "correction must be"),
        ({"trace_id": NOBODYS, "rating": "bad", "stars": 5}, "'stars' is not accepted"),
        ({"trace_id": NOBODYS, "rating": "bad", "user": 7}, "user must be"),
    ],
)
def test_what_is_wrong_is_named(home: Installation, said: dict[str, Any], names: str) -> None:
    answer = say(home, **said)
    assert answer.status_code == 400
    assert names in answer.json()["error"]["message"]


def test_it_counts_as_a_request_of_the_minute(tmp_path: Path) -> None:
    limits = "default: {requests_a_minute: 2, tokens_a_day: 1}"
    with installed(tmp_path, limits, keep=Keep()) as home:
        home.promote("a")
        trace = home.ask().json()["id"]
        assert home.ask().status_code == 429, "its tokens are used up"
        assert say(home, trace_id=trace, rating="bad").status_code == 202
        answer = say(home, trace_id=trace, rating="good")
        assert (answer.status_code, answer.headers["x-assay-limit"]) == (429, "requests_a_minute")
        assert say(home, home.operator, trace_id=trace, rating="bad").status_code == 202


def test_a_product_that_keeps_nothing_takes_no_feedback_and_keeps_no_words(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        home.promote("a")
        trace = home.ask().json()["id"]
        assert say(home, trace_id=trace, rating="bad").status_code == 403
        assert home.parts.feedback.flush()
        assert home.parts.feedback.sealed(None, 9) == []


def test_an_answer_is_kept_as_it_was_given(home: Installation) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "description": "d", "parameters": {}}}]
    whole = home.ask(tools=tools, user="ann").json()
    streamed = [
        json.loads(line.removeprefix("data: "))
        for line in home.ask(stream=True).text.splitlines()
        if line.startswith("data: {")
    ]
    home.parts.traces.flush()
    wait_until_sealed(home, 2)
    kept = {each.name: opened(home.parts.tenant_keys, each, RawExchange) for each in waiting(home, "exchange")}
    assert set(kept) == {whole["id"], streamed[0]["id"]}
    raw = kept[whole["id"]]
    assert (raw.answer, raw.user) == (whole["choices"][0]["message"]["content"], "ann")
    assert [message.model_dump() for message in raw.messages] == HELLO
    assert (raw.release, [tool.name for tool in raw.tools]) == (whole["assay"]["release"], ["look_up"])
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in streamed if each["choices"])
    assert kept[streamed[0]["id"]].answer == text


def test_what_asks_not_to_be_stored_and_the_operators_questions_are_not_kept(home: Installation) -> None:
    home.ask(store=False)
    home.ask(home.operator)
    kept = home.ask(store=True).json()["id"]
    wait_until_sealed(home, 1)
    assert [each.name for each in waiting(home, "exchange")] == [kept]


def test_which_answers_are_in_the_sample_follows_from_their_ids() -> None:
    names = [f"chatcmpl-{number:032x}" for number in range(4000)]
    tenth = {name for name in names if in_sample(name, 0.1)}
    assert 330 < len(tenth) < 470
    assert tenth < {name for name in names if in_sample(name, 0.5)}
    assert [name for name in names if in_sample(name, 0)] == []
    assert all(in_sample(name, 1) for name in names)


def wait_until_sealed(home: Installation, number: int) -> None:
    """The test's own timeout ends a wait in vain."""
    while len(waiting(home, "exchange")) < number:
        pass
