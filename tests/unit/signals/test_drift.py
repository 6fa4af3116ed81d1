"""Stable traffic is left alone; a planted shift is seen, answered once, and only when it lasts."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.chain import AuditRecord
from data_contracts.digests import sha256_bytes
from data_contracts.traces import Trace
from evals.shift import psi
from pipelines.recipes.product import Product, Source
from pipelines.settings import Settings
from pipelines.stages.signals.drift import DriftReport, FeatureDrift, is_recorded, measure, record
from pipelines.stages.signals.policy import SignalPolicy, load_policy
from pipelines.stages.signals.retrain_decision import decide, decide_and_record, episode
from pipelines.stages.signals.traces import Traffic, Window, late, summarize, traffic
from pipelines.wiring import Line

POLICY = load_policy()
START = datetime(2026, 1, 1, tzinfo=UTC)
RELEASE = sha256_bytes(b"release")
TOOLS = ["get_invoice", "issue_refund", "update_address", None]


def answers(count: int, seed: int, tools: Sequence[str | None] = TOOLS, chars: float = 300) -> list[Trace]:
    """Answers of a release, a minute apart."""
    dice = random.Random(seed)
    return [
        Trace(
            trace_id=f"{seed}-{index}",
            time=START + timedelta(days=seed, minutes=index),
            tenant="demo",
            product="billing-assistant",
            route="champion",
            release=RELEASE,
            base=sha256_bytes(b"base"),
            adapter=sha256_bytes(b"adapter"),
            template=sha256_bytes(b"template"),
            status=200,
            prompt_chars=max(1, int(dice.gauss(chars, chars / 4))),
            prompt_tokens=90,
            completion_tokens=20,
            latency_ms=100,
            json_valid=dice.random() < 0.97,
            tool=dice.choice(tools),
        )
        for index in range(count)
    ]


def compared(reference: Sequence[Trace], *current: Sequence[Trace]) -> DriftReport:
    windows = tuple(summarize(traces, POLICY) for traces in current)
    found = Traffic(
        product="billing-assistant",
        release=RELEASE,
        policy=POLICY.digest,
        reference=summarize(reference, POLICY),
        current=windows,
    )
    return measure(found, POLICY)


@pytest.mark.parametrize("seed", range(20))
def test_the_same_traffic_is_no_drift(seed: int) -> None:
    windows = [answers(POLICY.window, seed * 10 + index) for index in range(POLICY.windows)]

    assert not compared(answers(POLICY.window, seed * 10 + 9), *windows).drifted


@pytest.mark.parametrize(
    ("feature", "shifted"),
    [("tool", {"tools": ["issue_refund", "issue_refund", "issue_refund", None]}), ("prompt_chars", {"chars": 700})],
)
def test_a_planted_shift_is_named(feature: str, shifted: dict[str, object]) -> None:
    windows = [answers(POLICY.window, index, **shifted) for index in range(1, POLICY.windows + 1)]  # type: ignore[arg-type]

    report = compared(answers(POLICY.window, 0), *windows)

    assert report.drifted
    assert [f.feature for f in report.features if f.sustained] == [feature]
    assert feature in report.reason


def test_a_shift_that_passes_is_no_drift() -> None:
    spike = answers(POLICY.window, 1, chars=900)
    calm = [answers(POLICY.window, seed) for seed in (2, 3, 4)]

    report = compared(answers(POLICY.window, 0), spike, *calm)

    (lengths,) = [each for each in report.features if each.feature == "prompt_chars"]
    assert max(each.score for each in lengths.windows) > lengths.threshold
    assert not report.drifted


counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 500), min_size=1)


@given(p=counts, q=counts)
def test_psi_is_symmetric_and_zero_only_for_equal_shares(p: dict[str, int], q: dict[str, int]) -> None:
    assert psi(p, q) >= 0
    assert psi(p, q) == pytest.approx(psi(q, p))
    assert psi(p, p) == 0


def test_psi_of_a_worked_example() -> None:
    """Shares 100.5/201 and 50.5/201, 150.5/201: two terms of (q - p) ln(q / p)."""
    assert psi({"a": 100, "b": 100}, {"a": 50, "b": 150}) == pytest.approx(0.2716, abs=1e-4)


def report_of(drifted: bool, seed: int = 0, feature: str = "tool") -> DriftReport:
    window = Window(answers=1, counts={"prompt_chars": {}, "tool": {}, "json_valid": {}})
    found = Traffic(
        product="p", release=RELEASE, policy=POLICY.digest, reference=window, current=(window,) * (seed + 1)
    )
    return DriftReport(
        product="p",
        release=RELEASE,
        traffic=found.digest,
        policy=POLICY.digest,
        features=(FeatureDrift(feature=feature, method="shares", threshold=0.25, sustained=drifted),),
        drifted=drifted,
        reason="tool: PSI of 0.25 or more",
    )


def retrained(report: DriftReport, at: datetime) -> AuditRecord:
    body = {"decision": "retrain", "drift": report.digest, "episode": episode(report)}
    return AuditRecord(
        sequence=7, previous=RELEASE, time=at, actor="signals", event="retrain.decided", product="p", body=body
    )


def test_drift_is_answered_with_one_retraining() -> None:
    report = report_of(drifted=True)

    first = decide(report, POLICY, [], [600, 700, 5000], START)
    again = decide(report, POLICY, [retrained(report, START)], [], START + timedelta(days=30))

    assert (first.decision, first.effort_seconds) == ("retrain", 700)
    assert (again.decision, again.effort_seconds) == ("wait", None)
    assert "answered before (record 7)" in again.reasons[1]


def test_newer_windows_of_the_same_drift_are_no_new_drift() -> None:
    log = [retrained(report_of(drifted=True), START)]
    later = START + timedelta(days=30)

    same = decide(report_of(drifted=True, seed=1), POLICY, log, [], later)
    other = decide(report_of(drifted=True, feature="prompt_chars"), POLICY, log, [], later)

    assert (same.decision, other.decision) == ("wait", "retrain")


def test_less_of_a_drift_or_what_training_does_not_mend_is_no_new_drift(line: Line) -> None:
    def drifted(*features: str) -> DriftReport:
        (shape,) = report_of(drifted=True).features
        found = tuple(shape.model_copy(update={"feature": each}) for each in features)
        return report_of(drifted=True).model_copy(update={"features": found})

    decide_and_record(line, drifted("tool", "prompt_chars"), POLICY, [])
    log, later = line.log.records(), datetime.now(UTC) + timedelta(days=3)
    reports = [drifted("tool"), drifted("prompt_chars", "latency_ms"), drifted("tool", "digits")]
    found = [decide(each, POLICY, log, [], later).decision for each in reports]

    assert found == ["wait", "wait", "retrain"]
    other = drifted("tool").model_copy(update={"release": sha256_bytes(b"another")})
    assert decide(other, POLICY, log, [], later).decision == "retrain"


def test_retraining_cools_down() -> None:
    log = [retrained(report_of(drifted=True), START)]
    newer = report_of(drifted=True, feature="prompt_chars")
    over = START + timedelta(hours=POLICY.cool_down_hours)

    soon = decide(newer, POLICY, log, [], over - timedelta(hours=1))
    later = decide(newer, POLICY, log, [], over)

    assert (soon.decision, soon.held_by, soon.not_before) == ("hold", "cool-down", over)
    assert later.decision == "retrain"


def test_stable_traffic_waits() -> None:
    assert decide(report_of(drifted=False), POLICY, [], [], START).decision == "wait"


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(Settings(home=tmp_path, trust_root=tmp_path / "trust"))


PRODUCT = Product(
    name="billing-assistant",
    tenant="demo",
    description="",
    sources=(Source(url="generated://x", contract="c"),),
    data_policy="d",
    recipe="r",
    template="t",
    suites=("s",),
    gate_policy="g",
)


def test_from_the_gateways_traces_to_one_recorded_decision(line: Line) -> None:
    small = SignalPolicy.model_validate(POLICY.payload() | {"window": 50})
    line.log.append(
        "promotion.recorded", "billing-assistant", {"environment": "production", "release": RELEASE}, actor="test"
    )
    for trace in [*answers(50, 0), *answers(120, 1, tools=["get_invoice"])]:
        line.traces.add(trace)
    line.traces.flush()

    early = traffic(line, PRODUCT, small)
    assert (early.release, len(early.current)) == (RELEASE, 2)
    assert not measure(early, small).drifted, "two windows of four do not sustain a drift"
    for trace in answers(80, 2, tools=["get_invoice"]):
        line.traces.add(trace)
    line.traces.flush()
    found = traffic(line, PRODUCT, small)
    report = measure(found, small)

    assert found.reference == early.reference
    assert report.drifted
    assert not is_recorded(line, found)
    assert [record(line, report), record(line, report)] == [True, False]
    assert is_recorded(line, found)
    decisions = [decide_and_record(line, report, small, []) for _ in range(3)]
    assert [d.decision for d in decisions] == ["retrain", "wait", "wait"]
    assert [r.event for r in line.log.records()].count("retrain.decided") == 2


def kept(line: Line, traces: Sequence[Trace]) -> None:
    for trace in traces:
        line.traces.add(trace)
    assert line.traces.flush()


def test_a_window_once_sealed_stays_whatever_comes_later(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.stages.signals.traces._AT_ONCE", 100)
    small = SignalPolicy.model_validate(POLICY.payload() | {"window": 50, "windows": 3, "history": 3})
    line.log.append(
        "promotion.recorded", "billing-assistant", {"environment": "production", "release": RELEASE}, actor="test"
    )
    kept(line, answers(330, 0))
    found = traffic(line, PRODUCT, small)
    assert found.reference is not None
    assert found.reference.counts == summarize(answers(330, 0)[:50], small).counts
    assert [each.counts for each in found.current] == [
        summarize(answers(330, 0)[start : start + 50], small).counts for start in (150, 200, 250)
    ]
    assert late(line, PRODUCT, RELEASE, small) == 0
    behind = answers(330, 0)[260].model_copy(update={"trace_id": "late"})
    kept(line, [behind, *[each.model_copy(update={"trace_id": f"x{each.trace_id}"}) for each in answers(9, 0)]])
    assert traffic(line, PRODUCT, small).digest == found.digest, "nothing new to look at"
    assert late(line, PRODUCT, RELEASE, small) == 1
    kept(line, answers(20, 1))
    *old, new = traffic(line, PRODUCT, small).current
    assert tuple(old) == found.current[1:]
    assert new.counts == summarize([*answers(330, 0)[300:], *answers(20, 1)], small).counts
    other = small.model_copy(update={"meters": {}, "cool_down_hours": 1})
    assert other.shape == small.shape


def test_answers_of_the_last_moments_wait_for_those_still_under_way(line: Line) -> None:
    small = SignalPolicy.model_validate(POLICY.payload() | {"window": 2})
    line.log.append(
        "promotion.recorded", "billing-assistant", {"environment": "production", "release": RELEASE}, actor="test"
    )
    kept(line, [each.model_copy(update={"time": datetime.now(UTC)}) for each in answers(2, 0)])
    assert traffic(line, PRODUCT, small).reference is None
    assert traffic(line, PRODUCT, small.model_copy(update={"grace_seconds": 0})).reference is not None


def test_the_base_has_no_drift(line: Line) -> None:
    found = traffic(line, PRODUCT, POLICY)

    assert found.release is None
    assert "no release is live" in measure(found, POLICY).reason
