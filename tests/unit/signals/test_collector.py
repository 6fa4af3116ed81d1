"""The collector: what was sealed is scrubbed and kept once, or left out for a reason; nothing is lost meanwhile."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from data_contracts.errors import Unavailable
from data_contracts.policy import load_policy
from data_contracts.records import Message
from pipelines.recipes.product import Keep, Product
from pipelines.stages.data.ingest import pseudonym
from pipelines.stages.serve.raw_text import RawExchange, RawFeedback, sealed
from pipelines.stages.signals.collector import Collector
from pipelines.stages.signals.collector_app import make_collector_app
from tests.support.data import QuickAnalyzer
from tests.support.serving import FakeParts, tiny_product
from tests.support.traces import make_trace, release

NOW = datetime(2026, 1, 9, tzinfo=UTC)
TRACE = "chatcmpl-" + "1" * 32
Make = Callable[[], Collector]


class Parts(FakeParts):
    """With a detector of e-mail addresses and of Maria Keller."""

    def __init__(self, home: Path, traces: str = "") -> None:
        super().__init__(home, traces)
        self.pii = QuickAnalyzer()


@pytest.fixture
def parts(store_url: str, tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path, store_url)
    yield made
    made.feedback.close()
    made.traces.close()


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return tiny_product(tmp_path / "product").model_copy(
        update={"data_policy": "billing-assistant", "keep": Keep(share=1)}
    )


def collector(parts: Any, product: Product, now: datetime = NOW) -> Collector:
    return Collector(parts, lambda: [product], lambda: now)


def ask(parts: Parts, question: str = "hello", answer: str = "hi", user: str | None = None, name: str = TRACE) -> None:
    raw = RawExchange(
        trace_id=name,
        release=release("a"),
        messages=(Message(role="user", content=question),),
        tools=(),
        answer=answer,
        user=user,
    )
    assert parts.feedback.add_sealed(sealed(parts.tenant_keys, raw, name, NOW, "acme", "billing"))
    assert parts.feedback.flush()


def say(parts: Parts, name: str = "feedback-1", tenant: str = "acme", **said: Any) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("rating", "correction", "label", "user"))
    raw = RawFeedback(**nothing | {"trace_id": TRACE, "by": "user"} | said)
    assert parts.feedback.add_sealed(sealed(parts.tenant_keys, raw, name, NOW, tenant, ""))
    assert parts.feedback.flush()


def answered(parts: Parts) -> None:
    parts.traces.add(make_trace(TRACE))
    assert parts.traces.flush()


def test_words_are_kept_scrubbed_the_same_in_question_answer_and_correction(parts: Parts, product: Product) -> None:
    answered(parts)
    ask(parts, "I am Maria Keller, mk@acme.com", '{"tool": "none", "arguments": {"text": "Hello Maria Keller"}}', "ann")
    say(parts, correction="Good day, Maria Keller", rating="bad", user="ann")
    assert collector(parts, product).collect() == {"kept": 2}
    kept = parts.feedback.exchange(TRACE)
    (said,) = parts.feedback.of_trace(TRACE)
    assert kept is not None
    assert "Keller" not in f"{kept}{said}"
    assert "acme.com" not in f"{kept}{said}"
    stand_in = str(said.correction).removeprefix("Good day, ")
    assert f"I am {stand_in}, " in kept.messages[0].content
    assert f'"Hello {stand_in}"' in kept.answer
    assert kept.policy == load_policy(product.file("data_policy", product.data_policy)).digest
    assert kept.subject == said.author == pseudonym(parts, "ann")  # type: ignore[arg-type]
    assert (said.release, said.product, said.by, said.time) == (release("a"), "billing", "user", NOW)
    assert parts.feedback.sealed(None, 9) == []
    assert collector(parts, product).collect() == {}


def test_what_comes_twice_is_kept_once(parts: Parts, product: Product) -> None:
    answered(parts)
    say(parts, rating="bad")
    collector(parts, product).collect()
    say(parts, rating="good")
    collector(parts, product).collect()
    assert [each.rating for each in parts.feedback.of_trace(TRACE)] == ["bad"]


def test_feedback_waits_for_its_answer_and_not_for_ever(parts: Parts, product: Product) -> None:
    say(parts, rating="bad")
    assert collector(parts, product).collect() == {"waits": 1}
    answered(parts)
    assert collector(parts, product).collect() == {"kept": 1}
    say(parts, "feedback-2", trace_id="chatcmpl-" + "2" * 32, rating="bad")
    assert collector(parts, product, NOW + timedelta(days=6)).collect() == {"waits": 1}
    assert collector(parts, product, NOW + timedelta(days=8)).collect() == {"left": 1}
    assert parts.feedback.sealed(None, 9) == []


def test_of_another_tenants_answer_nothing_is_kept(parts: Parts, product: Product) -> None:
    answered(parts)
    say(parts, tenant="globex", rating="bad")
    assert collector(parts, product).collect() == {"left": 1}
    assert parts.feedback.of_trace(TRACE) == []


def test_a_person_who_was_erased_is_not_kept(parts: Parts, product: Product) -> None:
    answered(parts)
    parts.keyring.delete(pseudonym(parts, "ann"))  # type: ignore[arg-type]
    ask(parts, user="ann")
    say(parts, rating="bad", user="ann")
    assert collector(parts, product).collect() == {"left": 2}


def test_a_product_that_keeps_nothing_any_more_loses_what_waits(parts: Parts, product: Product) -> None:
    ask(parts)
    assert collector(parts, product.model_copy(update={"keep": None})).collect() == {"left": 1}


def test_what_a_shredded_tenant_said_is_gone_and_what_has_no_key_yet_waits(parts: Parts, product: Product) -> None:
    ask(parts)
    key = parts.tenant_keys.folder / "acme.key"
    aside = key.rename(parts.home / "aside")
    assert collector(parts, product).collect() == {"waits": 1}
    aside.rename(key)
    parts.tenant_keys.destroy("acme")
    assert collector(parts, product).collect() == {"left": 1}


def test_a_text_that_cannot_be_read_holds_up_no_other(
    parts: Parts, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(parts, "bad", name="chatcmpl-" + "0" * 32)
    ask(parts, "good")
    find = parts.pii.find

    def fails(texts: list[str], least: Any = None) -> Any:
        if texts[0].startswith("bad"):
            raise RecursionError
        return find(texts, least)

    monkeypatch.setattr(parts.pii, "find", fails)
    assert collector(parts, product).collect() == {"waits": 1, "kept": 1}


def test_the_program_says_that_it_cannot_collect_and_goes_on_when_it_can(parts: Parts, product: Product) -> None:
    fails = [True]

    def products() -> list[Product]:
        if fails:
            raise Unavailable("no products")
        return [product]

    ask(parts)
    with TestClient(make_collector_app(Collector(parts, products, lambda: NOW), 0.01)) as client:  # type: ignore[arg-type]
        while client.get("/healthz").status_code == 200:
            pass
        assert "no products" in client.get("/healthz").json()["detail"]
        fails.clear()
        while parts.feedback.exchange(TRACE) is None:
            pass
        while client.get("/healthz").status_code != 200:
            pass
