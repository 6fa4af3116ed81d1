"""Requests of two kinds at the real gateway: the meter `class_balance` tells when their mix is no longer the one that
the release learned from."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from evals.answers import call, words
from evals.suite import tool_catalogue
from pipelines.stages.serve.answer import as_openai_tools
from pipelines.stages.serve.gateway import make_gateway
from pipelines.stages.serve.tenants import create_key
from pipelines.stages.signals.drift import DriftReport, measure
from pipelines.stages.signals.learned import learned
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.traces import traffic
from tests.support.line import SmallLine
from tests.support.month import Asked, train_on
from tests.support.ports import free_ports
from tests.support.serving import FakeVllm, fake_vllm, running

REAL = load_policy()
ITS = {name: rule for name, rule in REAL.meters.items() if rule.alert != "service"}
POLICY = REAL.model_copy(update={"window": 40, "meters": ITS})
"""Without the meters of speed, which would be this machine's."""
INVOICE = Asked("What is on INV-8140?", call("get_invoice", {"invoice_id": "INV-8140"}))
CHAT = Asked("How are you, dears?", words("Very well, thank you."))
HALF, MOSTLY = [INVOICE, CHAT] * 20, [INVOICE] * 38 + [CHAT] * 2
"""Of a window."""


class Place:
    """A release that learned both kinds in equal shares, live behind the gateway."""

    def __init__(self, line: SmallLine, client: httpx.Client) -> None:
        self.line, self.client = line, client
        self.release = line.live().digest

    def ask(self, *windows: list[Asked]) -> None:
        tools = as_openai_tools((tool_catalogue()["get_invoice"],))
        for each in (each for window in windows for each in window):
            body = {"model": self.line.product.name, "messages": [{"role": "user", "content": each.question}]}
            answer = self.client.post("/v1/chat/completions", json=body | {"tools": tools})
            assert answer.headers["x-assay-release"] == self.release

    def report(self) -> DriftReport:
        parts = self.line.parts
        assert parts.traces.flush()
        soon = datetime.now(UTC) + timedelta(seconds=POLICY.grace_seconds)
        found = traffic(parts, self.line.product, POLICY, soon)
        return measure(found, POLICY, learned=learned(parts, self.release))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    line = SmallLine(tmp_path / "line", "billing")
    line.splits = train_on(line, HALF)
    vllm = FakeVllm(line.base)
    vllm.says = {each.question: each.answer for each in (INVOICE, CHAT)}
    line.parts.__dict__["server"] = vllm
    app = make_gateway(line.parts, lambda: [line.product], reconcile_seconds=0)
    headers = {"authorization": f"Bearer {create_key(line.parts.home, line.product.tenant)}"}
    with (
        fake_vllm(vllm),
        running(app, free_ports(1)[0]) as url,
        httpx.Client(base_url=url, headers=headers, timeout=30, verify=False) as client,
    ):
        yield Place(line, client)


def test_the_mix_of_live_requests_is_held_against_the_training_rows(place: Place) -> None:
    place.ask(HALF, HALF, HALF)
    before = place.report()
    (calm,) = [each for each in before.features if each.feature == "class_balance"]
    assert [window.value for window in calm.windows] == [0.0, 0.0]
    assert before.sustained == []

    place.ask(MOSTLY, MOSTLY)
    assert place.report().sustained == [], "two windows of four do not last"

    place.ask(MOSTLY)
    after = place.report()
    (read,) = [each for each in after.features if each.feature == "class_balance"]
    over = [window.score >= read.threshold for window in read.windows]
    assert over == [False, False, True, True, True]
    assert read.sustained
    assert read.reading in after.reason
    assert "new_tool" not in after.sustained, "both kinds were learned"


def test_a_mix_that_was_never_learned_is_seen_though_traffic_began_so(place: Place) -> None:
    """Unlike `tool`, it does not take the first window for what is right."""
    place.ask(*[MOSTLY] * 4)

    assert place.report().sustained == ["class_balance"]
