"""A deprecated release as a client meets it, before its sunset and after."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from data_contracts.digests import Digest, hex_of, sha256_bytes
from pipelines.recipes.product import Product
from pipelines.stages.release.lifecycle import deprecate
from pipelines.stages.serve.gateway import make_gateway
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import challenging
from pipelines.stages.serve.tenants import create_key, operator_key
from tests.support.ports import free_ports
from tests.support.serving import FakeParts, chain, fake_vllm, registered, running, tiny_product

HELLO = [{"role": "user", "content": "hello"}]


@dataclass
class Place:
    parts: FakeParts
    product: Product
    url: str
    now: datetime

    def release(self, seed: str) -> Digest:
        return registered(self.parts, self.product, self.parts.base.digest, sha256_bytes(seed.encode()))

    def promote(self, release: Digest) -> None:
        body = {"release": release, "environment": self.product.environment, "outcome": "pass", "reason": ""}
        self.parts.log.append("canary.recorded", self.product.name, body, actor="test")
        chain(self.parts, self.product, release)
        reconcile(self.parts, [self.product])

    def ask(self, key: str = "", headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        key = key or create_key(self.parts.home, self.product.tenant)
        body = {"model": self.product.name, "messages": HELLO} | more
        with httpx.Client(timeout=30, trust_env=False) as client:
            sent = {"authorization": f"Bearer {key}", **(headers or {})}
            return client.post(f"{self.url}/v1/chat/completions", json=body, headers=sent)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    parts = FakeParts(tmp_path)
    product = tiny_product(tmp_path / "product")
    found = Place(parts, product, "", datetime.now(UTC))
    app = make_gateway(parts, lambda: [product], reconcile_seconds=0, now=lambda: found.now)
    with fake_vllm(parts.server), running(app, free_ports(1)[0]) as found.url:
        yield found


def test_answers_carry_the_notice_until_the_sunset_and_then_there_are_none(place: Place) -> None:
    live, successor = place.release("a"), place.release("b")
    place.promote(live)
    assert "deprecation" not in place.ask().headers

    sunset = (place.now + timedelta(days=30)).replace(microsecond=0)
    record = deprecate(place.parts, live, sunset, "prices changed", "test", successor)
    for answer in (place.ask(), place.ask(stream=True)):
        assert answer.status_code == 200
        assert answer.headers["x-assay-release"] == live
        assert answer.headers["deprecation"] == f"@{int(record.time.timestamp())}"
        assert parsedate_to_datetime(answer.headers["sunset"]) == sunset
        assert answer.headers["sunset"].endswith(" GMT")
        target, relation, title = answer.headers["link"].split("; ")
        named = base64.urlsafe_b64decode(target.removeprefix("<ni:///sha-256;").removesuffix(">") + "=")
        assert named.hex() == hex_of(successor)
        assert (relation, title) == ('rel="successor-version"', f'title="{successor}"')

    asked = len(place.parts.server.asked)
    place.now = sunset
    refused = place.ask()
    assert refused.status_code == 410
    error = refused.json()["error"]
    assert error["code"] == "release_sunset"
    assert live in error["message"]
    assert f"its successor {successor} has to be promoted" in error["message"]
    assert parsedate_to_datetime(refused.headers["sunset"]) == sunset
    assert len(place.parts.server.asked) == asked, "nobody else answers in its place"


def test_a_sunset_that_moved_to_a_later_day_counts_and_the_notice_keeps_its_date(place: Place) -> None:
    live = place.release("a")
    place.promote(live)
    first = deprecate(place.parts, live, place.now + timedelta(days=1), "prices changed", "test")
    deprecate(place.parts, live, place.now + timedelta(days=9), "still in use", "test")
    place.now += timedelta(days=5)
    answer = place.ask()
    assert answer.status_code == 200
    assert answer.headers["deprecation"] == f"@{int(first.time.timestamp())}"
    assert "link" not in answer.headers


def test_past_the_sunset_the_successor_passes_its_canary_and_answers(place: Place) -> None:
    live = place.release("a")
    place.promote(live)
    deprecate(place.parts, live, place.now + timedelta(days=1), "prices changed", "test")
    place.now += timedelta(days=2)
    assert place.ask().status_code == 410
    successor = place.release("b")
    with challenging(place.parts, place.product, successor):
        key = operator_key(place.parts.home)
        answer = place.ask(key, {"x-assay-challenger": successor})
        assert answer.headers["x-assay-release"] == successor
        assert "deprecation" not in answer.headers
    place.promote(successor)
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-assay-release"]) == (200, successor)
    assert "sunset" not in answer.headers
