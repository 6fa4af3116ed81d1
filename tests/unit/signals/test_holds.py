"""What holds a retraining: freezes, incidents, the budget; and what lets it go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_contracts.chain import ALL, AuditRecord
from data_contracts.digests import sha256_bytes
from data_contracts.errors import BadInput, Missing, Refused
from pipelines.settings import Settings
from pipelines.stages.signals.freeze import FreezeWindow, frozen, read_calendar
from pipelines.stages.signals.incident import close_incident, open_incident, open_incidents
from pipelines.stages.signals.retrain_decision import decide, decide_and_record, dispute, is_released
from pipelines.wiring import Line
from tests.unit.signals.test_drift import POLICY, START, report_of

HOUR = timedelta(hours=1)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(Settings(home=tmp_path, trust_root=tmp_path / "trust"))


def calendar(folder: Path, text: str) -> Path:
    path = folder / "freeze.yaml"
    path.write_text(text)
    return path


WEEKEND = """
windows:
  - owner: ada@acme.example
    reason: nobody watches at the weekend
    begins: 2026-01-02T18:00:00Z
    ends: 2026-01-05T06:00:00Z
    repeats: FREQ=WEEKLY
  - owner: bob@acme.example
    reason: audit
    begins: 2026-02-01T00:00:00+01:00
    ends: 2026-02-03T00:00:00+01:00
    products: [billing-assistant]
"""


@pytest.mark.parametrize(
    ("product", "now", "until"),
    [
        ("p", datetime(2026, 1, 1, 12, tzinfo=UTC), None),
        ("p", datetime(2026, 1, 2, 18, tzinfo=UTC), datetime(2026, 1, 5, 6, tzinfo=UTC)),
        ("p", datetime(2026, 1, 5, 6, tzinfo=UTC), None),
        ("p", datetime(2026, 6, 13, tzinfo=UTC), datetime(2026, 6, 15, 6, tzinfo=UTC)),
        ("p", datetime(2026, 2, 2, 12, tzinfo=UTC), None),
        ("billing-assistant", datetime(2026, 2, 2, 12, tzinfo=UTC), datetime(2026, 2, 2, 23, tzinfo=UTC)),
        ("billing-assistant", datetime(2026, 2, 1, 12, tzinfo=UTC), datetime(2026, 2, 2, 23, tzinfo=UTC)),
    ],
)
def test_a_calendar_freezes_its_products_in_its_windows(
    tmp_path: Path, product: str, now: datetime, until: datetime | None
) -> None:
    held = frozen(calendar(tmp_path, WEEKEND), product, now)

    assert (held and held.until) == until
    if held is not None:
        assert "@acme.example: " in held.why


def test_a_calendar_that_cannot_be_read_freezes_everything(tmp_path: Path) -> None:
    for text in ("windows: [{owner: ada}]", "windows: {", "wndows: []", WEEKEND.replace("WEEKLY", "SOMETIMES")):
        path = calendar(tmp_path, text)
        with pytest.raises(BadInput, match=r"freeze\.yaml"):
            read_calendar(path)
        held = frozen(path, "p", START)
        assert held is not None
        assert held.until is None
        assert "cannot be read" in held.why
    assert frozen(tmp_path / "none.yaml", "p", START) is None


@given(
    length=st.integers(1, 6 * 24),
    after=st.integers(0, 90 * 24),
)
def test_a_weekly_window_holds_for_its_length_of_every_week(length: int, after: int) -> None:
    window = FreezeWindow(owner="o", reason="r", begins=START, ends=START + length * HOUR, repeats="FREQ=WEEKLY")

    assert (window.until(START + after * HOUR) is not None) == (after % (7 * 24) < length)


def test_a_window_without_a_zone_or_an_end_after_its_beginning_is_refused() -> None:
    with pytest.raises(ValidationError, match="before it begins"):
        FreezeWindow(owner="o", reason="r", begins=START, ends=START)
    with pytest.raises(ValidationError, match="timezone"):
        FreezeWindow(owner="o", reason="r", begins=START.replace(tzinfo=None), ends=START + HOUR)


def test_an_incident_holds_until_it_is_closed(line: Line) -> None:
    report = report_of(drifted=True)
    opened = open_incident(line, "p", "wrong invoices", "cli:ada")

    assert [decide_and_record(line, report, POLICY, []).held_by for _ in range(3)] == ["incident"] * 3
    assert [r.event for r in line.log.records()].count("retrain.decided") == 1, "told once"
    assert not is_released(line, "p", POLICY, datetime.now(UTC))
    with pytest.raises(Refused, match=f"record {opened.sequence}"):
        open_incident(line, "p", "again", "cli:bob")
    with pytest.raises(Refused, match="open are those of p"):
        close_incident(line, ALL, "over", "cli:ada")

    close_incident(line, "p", "mended", "cli:ada")
    assert open_incidents(line.log.records()) == {}
    assert is_released(line, "p", POLICY, datetime.now(UTC))
    assert decide_and_record(line, report, POLICY, []).decision == "retrain"
    assert not is_released(line, "p", POLICY, datetime.now(UTC))


def test_an_incident_of_all_holds_every_product(line: Line) -> None:
    open_incident(line, ALL, "the cluster is down", "cli:ada")

    assert decide_and_record(line, report_of(drifted=True), POLICY, []).held_by == "incident"


def trained(hours: float, at: datetime) -> AuditRecord:
    body = {"checkpoint": "c", "stage": "sft", "seconds": hours * 3600}
    return AuditRecord(
        sequence=1,
        previous=sha256_bytes(b""),
        time=at,
        actor="training",
        event="checkpoint.recorded",
        product="p",
        body=body,
    )


def test_the_budget_holds_until_enough_of_what_was_spent_is_thirty_days_old() -> None:
    report, month = report_of(drifted=True), timedelta(days=30)
    third = POLICY.budget_hours / 3
    log = [trained(third, START), trained(third, START + timedelta(days=10))]
    now = START + timedelta(days=20)

    fits = decide(report, POLICY, log, [third * 3600], now)
    over = decide(report, POLICY, log, [third * 3600 + 1], now)
    twice = decide(report, POLICY, log, [third * 3600 * 2 + 1], now)
    never = decide(report, POLICY, log, [third * 3600 * 4], now)

    assert fits.decision == "retrain"
    assert (over.decision, over.held_by, over.not_before) == ("hold", "budget", START + month)
    assert twice.not_before == START + timedelta(days=10) + month
    assert (never.decision, never.not_before) == ("hold", None)
    assert decide(report, POLICY, log, [third * 3600 + 1], START + month).decision == "retrain"
    assert "the budget is 72" in over.reasons[-1]


def test_a_dispute_is_chained_with_the_decision_it_is_about(line: Line) -> None:
    with pytest.raises(Missing, match="nothing was decided about p"):
        dispute(line, "p", "why?", "cli:ada")
    decide_and_record(line, report_of(drifted=True), POLICY, [])
    decided = line.log.records()[-1]

    record = dispute(line, "p", "a campaign of one week", "cli:ada")

    assert (record.actor, record.body["decided"]) == ("cli:ada", decided.digest)
    with pytest.raises(BadInput, match="needs a reason"):
        dispute(line, "p", " ", "cli:ada")
