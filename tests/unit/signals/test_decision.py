"""What mends a signal decides, then what retraining promises; and a record that a person can read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.feedback import Feedback
from evals.learning_curve import Gain
from pipelines.settings import Settings
from pipelines.stages.release.candidate import register
from pipelines.stages.signals.drift import DriftReport, FeatureDrift
from pipelines.stages.signals.freeze import Freeze
from pipelines.stages.signals.outlook import Effort, Outlook, outlook
from pipelines.stages.signals.retrain_decision import RetrainDecision, decide, decide_and_record
from pipelines.wiring import Line
from tests.support.line import REPORT, SmallLine
from tests.support.runs import make_record
from tests.unit.signals.test_drift import POLICY, START, report_of

EFFORT = Effort(gpu_hours=1.5, machine_hours=0.0, label_hours=2.0, cost=None, currency=None)


def drifted(*features: str) -> DriftReport:
    report = report_of(drifted=True)
    found = tuple(FeatureDrift(feature=each, method="shares", sustained=True, threshold=0.25) for each in features)
    return report.model_copy(update={"features": found})


def promising(low: float | None) -> Outlook:
    found = None if low is None else Gain(error=0.2, estimate=low + 0.01, low=low, high=low + 0.05)
    return Outlook(target="suite (exact)", points=(), rows=100, more=60, gain=found, why_not="no curve", effort=EFFORT)


def test_what_training_does_not_mend_is_to_be_fixed() -> None:
    frozen = Freeze("frozen by ada", None)

    decision = decide(drifted("json_valid"), POLICY, [], [600], START, frozen, promising(0.5))

    assert (decision.decision, decision.remedies, decision.held_by) == ("fix", ("prompt",), None)
    assert "json_valid is not mended by training; look at prompt, template or server settings" in decision.reasons


def test_speed_and_cost_alone_never_retrain() -> None:
    decision = decide(drifted("latency_ms", "cost_1000"), POLICY, [], [], START, None, promising(0.5))

    assert (decision.decision, decision.remedies) == ("fix", ("serving",))


def test_broken_answers_to_other_questions_may_come_of_the_questions() -> None:
    decision = decide(drifted("prompt_chars", "json_valid"), POLICY, [], [], START)

    assert (decision.decision, decision.remedies) == ("retrain", ("prompt",))
    assert any("json_valid is not mended" in reason for reason in decision.reasons), "it is named all the same"


@pytest.mark.parametrize(
    ("low", "expected"), [(POLICY.worth, "retrain"), (POLICY.worth - 1e-6, "wait"), (0.0, "wait"), (None, "retrain")]
)
def test_what_retraining_promises_must_be_worth_it_where_it_is_known(low: float | None, expected: str) -> None:
    held = Freeze("frozen by ada", None)

    decision = decide(drifted("tool"), POLICY, [], [], START, None, promising(low))
    frozen = decide(drifted("tool"), POLICY, [], [], START, held, promising(low))

    assert decision.decision == expected
    assert frozen.decision == ("hold" if expected == "retrain" else "wait")
    assert ("may not be worth it" in decision.reasons[-1]) == (expected == "wait")


def test_a_record_of_an_earlier_edition_is_read_as_it_was(tmp_path: Path) -> None:
    decision = decide(report_of(drifted=False), POLICY, [], [], START, None, promising(0.5))

    assert not {"outlook", "remedies"} & decision.payload().keys()
    assert RetrainDecision.model_validate(decision.payload()).digest == decision.digest


def test_to_fix_is_recorded_with_what_mends_it(tmp_path: Path) -> None:
    line = Line(Settings(home=tmp_path, trust_root=tmp_path / "trust"))

    decide_and_record(line, drifted("json_valid"), POLICY, [], promising(0.5))

    body = line.log.records()[-1].body
    assert (body["decision"], body["remedies"]) == ("fix", ["prompt"])


def corrected(line: SmallLine, trace: str, release: str) -> Feedback:
    return Feedback(
        feedback_id=f"f-{trace}",
        trace_id=trace,
        time=datetime.now(UTC),
        tenant=line.product.tenant,
        product=line.product.name,
        release=release,
        by="user",
        author="a",
        correction="{}",
    )


def test_the_outlook_is_of_past_releases_corrections_and_runs(tmp_path: Path) -> None:
    """Three releases of different sizes, each better than the last; the newest is live, two answers were corrected."""
    line = SmallLine(tmp_path / "line")
    parts, name, soon = line.parts, line.product.name, datetime.now(UTC) + timedelta(minutes=5)
    assert outlook(parts, line.product, POLICY, soon).why_not == "no release is live"
    for seed, (rows, score) in enumerate([(100, 0.8), (200, 0.9), (400, 1.0)]):
        facts = line.splits.facts | {"rows": {"train": rows, "validation": 9}}
        line.splits = line.splits.model_copy(update={"facts": facts})
        parts.store.put_manifest(line.splits)
        model = line.candidate(seed)
        release = register(parts, line.product, model, line.verdict(model, score=score), REPORT)[0]
    line.approve(release)
    line.promote(release)

    alone = outlook(parts, line.product, POLICY, soon)
    for trace in ("t1", "t2"):
        parts.feedback.add(corrected(line, trace, release.digest))
        parts.feedback.add(corrected(line, trace, release.digest).model_copy(update={"feedback_id": f"again-{trace}"}))
    parts.feedback.flush()
    parts.runs.put(make_record("one", product=name, gpu_seconds=3600.0, seconds=3600.0, ended=START))
    (parts.home / "prices.yaml").write_text(
        "{currency: EUR, gpu_minute: 0.5, cpu_minute: 0, prompt_1000: 0, completion_1000: 0, "
        "memory_gib_hour: 0, labelling_hour: 30}"
    )
    found = outlook(parts, line.product, POLICY, soon)

    assert sorted(point.rows for point in found.points) == [100, 200, 400]
    assert (alone.rows, alone.more, alone.gain) == (400, 0, None)
    assert "no correction came" in alone.why_not
    assert found.more == 2
    assert found.gain is not None
    assert 0 <= found.gain.low <= found.gain.estimate <= found.gain.high < 0.05
    assert found.effort.gpu_hours == 1
    assert found.effort.cost == pytest.approx(0.5 * 60 + 2 * POLICY.label_minutes / 60 * 30)
    assert "2 rows more than 400 would lower the error on small-suite (exact)" in found.words[0]
    assert "EUR" in found.words[1]


def test_releases_that_were_measured_otherwise_are_no_points(tmp_path: Path) -> None:
    line = SmallLine(tmp_path / "line")
    first = line.live()
    before = outlook(line.parts, line.product, POLICY, datetime.now(UTC))
    path = tmp_path / "line" / "items.jsonl"
    path.write_text(path.read_text().replace("question 1", "another question"))

    line.live(seed=1, champion=line.model_of(first))

    after = outlook(line.parts, line.product, POLICY, datetime.now(UTC))
    assert [len(before.points), len(after.points)] == [1, 1]


def test_corrections_that_nobody_looked_at_hold_the_run_that_would_learn_from_them() -> None:
    held = decide(drifted("tool"), POLICY, [], [], START, waiting=3)

    assert (held.decision, held.held_by, held.not_before) == ("hold", "adjudication", None)
    assert "3 corrections" in held.reasons[-1]
    assert decide(drifted("tool"), POLICY, [], [], START, waiting=0).decision == "retrain"
