"""Alerts: each raised once while it lasts, over once, and said with what to do about it."""

from collections import Counter
from datetime import timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.chain import AuditRecord, EventKind
from data_contracts.digests import Digest, sha256_bytes
from pipelines.recipes.product import ROOT
from pipelines.stages.signals.alerts import QUIET, Alert, Kind, alerts
from tests.unit.signals.test_drift import START

HOUR = timedelta(hours=1)
OLD, NEW = sha256_bytes(b"old"), sha256_bytes(b"new")
Event = tuple[EventKind, dict[str, Any]]


def drift(drifted: bool, release: Digest = OLD) -> Event:
    body = {"report": sha256_bytes(b"report"), "release": release, "drifted": drifted, "reason": "tool: PSI"}
    return "drift.recorded", body


def metered(*kinds: Kind) -> Event:
    """A report in which meters of these kinds drifted."""
    body = {"report": NEW, "release": OLD, "drifted": bool(kinds), "reason": "r", "alerts": {k: f"{k}!" for k in kinds}}
    return "drift.recorded", body


def decided(decision: str, held_by: str | None = None, episode: str = "e") -> Event:
    body = {"decision": decision, "held_by": held_by, "record": NEW, "drift": OLD, "episode": episode, "reasons": ["r"]}
    return "retrain.decided", body


def canary(outcome: str, release: Digest = NEW) -> Event:
    return "canary.recorded", {"release": release, "canary": OLD, "outcome": outcome, "reason": "0 of 4"}


def champion(event: EventKind, release: Digest | None = OLD) -> Event:
    return event, {"environment": "production", "release": release, "from": NEW, "displaced": None, "reason": "why"}


def repaired(projection: str = "alias") -> Event:
    body = {"environment": "production", "projection": projection, "found": None, "expected": OLD}
    return "projection.repaired", body


ROLLBACK, PROMOTION = champion("rollback.recorded"), champion("promotion.recorded", NEW)
FILED, REGISTERED = champion("root-cause.filed"), champion("release.registered", NEW)


def failed(job: str) -> Event:
    return "run.failed", {"job": job, "run": "r", "cause": "c", "step": "model__sft", "error": "GuardTripped"}


BROKEN, WHOLE = champion("champion.unverified"), champion("champion.verified")


def log(*events: Event, product: str = "p") -> list[AuditRecord]:
    """An hour apart."""
    return [
        AuditRecord(
            sequence=n, previous=OLD, time=START + n * HOUR, actor="a", event=event, product=product, body=dict(body)
        )
        for n, (event, body) in enumerate(events)
    ]


def told(*events: Event) -> list[tuple[Kind, int, int | None]]:
    """Of each alert the kind, the record that raised it, and the one that ended it."""
    now = START + len(events) * HOUR
    return [(alert.kind, alert.raised, alert.ended) for alert in alerts(log(*events), now)]


@pytest.mark.parametrize(
    ("kind", "raises", "ends"),
    [
        ("drift", drift(True), drift(False)),
        ("drift", drift(True), PROMOTION),
        ("quality", metered("quality"), metered()),
        ("safety", metered("safety"), PROMOTION),
        ("service", metered("service"), metered()),
        ("new-label", metered("new-label"), metered()),
        ("retraining-decided", decided("retrain"), REGISTERED),
        ("retraining-failed", failed("line"), REGISTERED),
        ("retraining-failed", failed("line"), PROMOTION),
        ("promotion-failed", failed("promote"), PROMOTION),
        ("retraining-held", decided("hold", "freeze"), decided("wait")),
        ("retraining-held", decided("hold", "freeze"), PROMOTION),
        ("fix-needed", decided("fix"), decided("wait")),
        ("fix-needed", decided("fix"), PROMOTION),
        ("canary-reverted", canary("fail"), canary("pass")),
        ("canary-reverted", canary("fail"), PROMOTION),
        ("rollback", ROLLBACK, FILED),
        ("champion-unverified", BROKEN, WHOLE),
        ("champion-unverified", BROKEN, PROMOTION),
    ],
)
def test_an_alert_is_raised_once_while_it_lasts_is_over_once_and_may_come_again(
    kind: Kind, raises: Event, ends: Event
) -> None:
    assert told(raises, raises, raises) == [(kind, 0, None)]
    assert told(raises, raises, ends, ends) == [(kind, 0, 2)]
    assert told(raises, ends, raises)[-1] == (kind, 2, None)
    (other,) = alerts([*log(raises), *log(ends, product="q")], START + HOUR)
    assert other.over is None, "another product's record ends nothing"


def test_meters_of_several_kinds_raise_an_alert_each() -> None:
    assert told(metered("quality", "safety"), metered("safety", "service"), metered()) == [
        ("quality", 0, 1),
        ("safety", 0, 2),
        ("service", 1, 2),
    ]
    first, *_ = alerts(log(metered("quality", "safety")), START)
    assert "quality!" in first.happened
    assert "safety!" not in first.happened


def test_another_episode_of_the_same_kind_takes_the_place_of_the_one_before() -> None:
    assert told(drift(True, OLD), drift(True, NEW)) == [("drift", 0, 1), ("drift", 1, None)]
    held = told(decided("hold", "freeze"), decided("hold", "budget"), decided("retrain"))
    assert held == [("retraining-held", 0, 1), ("retraining-held", 1, 2), ("retraining-decided", 2, None)]
    assert told(canary("fail", OLD), canary("fail", NEW)) == [("canary-reverted", 0, 1), ("canary-reverted", 1, None)]
    assert told(decided("retrain"), decided("wait")) == [("retraining-decided", 0, None)], "its run goes on"
    assert told(decided("retrain"), failed("line"), decided("retrain", episode="f")) == [
        ("retraining-decided", 0, 1),
        ("retraining-failed", 1, 2),
        ("retraining-decided", 2, None),
    ]
    assert told(repaired("alias"), repaired("routes"), repaired("alias")) == [
        ("projection-repaired", 0, None),
        ("projection-repaired", 1, None),
    ]


def test_what_was_put_back_is_over_after_a_quiet_day_and_raised_anew_then() -> None:
    first = log(repaired())[0]
    again = [first.model_copy(update={"sequence": n, "time": first.time + n * QUIET}) for n in range(3)]
    (lasting,) = alerts(again, again[-1].time + QUIET)
    assert (lasting.raised, lasting.over) == (0, None), "every day one more"
    (ended,) = alerts(again, again[-1].time + QUIET + HOUR)
    assert (ended.over, ended.ended) == (again[-1].time + QUIET, None)
    late = first.model_copy(update={"sequence": 1, "time": first.time + QUIET + HOUR})
    assert [alert.raised for alert in alerts([first, late], late.time)] == [0, 1]


def test_each_says_what_happened_with_which_evidence_what_was_done_and_what_to_do() -> None:
    (alert,) = alerts(log(champion("rollback.recorded")), START)
    lines = alert.text.splitlines()
    assert lines[0] == f"p (production): rolled back to {OLD} from {NEW}: why."
    assert lines[1] == f"Evidence: audit record 0, left release {NEW}, release {OLD}"
    assert [line.partition(":")[0] for line in lines[2:]] == ["Done", "To do", "Runbook"]
    assert lines[4] == "Runbook: docs/runbooks/rollback.md"


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_kind_has_a_runbook(kind: Kind) -> None:
    page = (ROOT / "docs" / "runbooks" / f"{kind}.md").read_text()
    for part in ("What it means", "What the line did", "Look first", "Then do", "Over"):
        assert f"**{part}" in page, f"{kind}: no part {part!r}"
    assert "```\nassay " in page


def test_there_is_no_runbook_of_an_alert_that_nothing_raises() -> None:
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} == set(get_args(Kind))


EVENTS = [
    *(drift(True), drift(True, NEW), drift(False), decided("retrain"), decided("hold", "budget"), decided("wait")),
    *(canary("fail"), canary("pass"), repaired(), ROLLBACK, PROMOTION, FILED, REGISTERED, BROKEN, WHOLE),
]


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_no_alert_is_raised_while_the_same_one_lasts_and_the_past_is_not_rewritten(events: list[Event]) -> None:
    records = log(*events)
    now = START + 40 * HOUR
    found = alerts(records, now)
    for one in found:
        same = [each for each in found if each.key == one.key and each.raised > one.raised]
        assert all(one.over is not None and one.over <= each.since for each in same)
        assert one.over is None or one.over >= one.since
    assert max(Counter(each.key for each in found if each.over is None).values(), default=0) <= 1

    def ended(known: list[Alert]) -> set[tuple[str, int, int | None]]:
        return {(each.kind, each.raised, each.ended) for each in known if each.ended is not None}

    assert ended(alerts(records[:-1], now)) <= ended(found)
