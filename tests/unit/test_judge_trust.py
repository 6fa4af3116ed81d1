"""What a calibration is worth to the gate: a judge counts while it is calibrated as it is, and reaches the policy."""

from functools import cache

import pytest

from data_contracts.errors import Refused
from data_contracts.judging import Calibration, JudgePolicy
from data_contracts.verdicts import EvalResult, Judged
from evals.calibration import calibrate, keep, seat
from evals.gate import evaluate_policy
from evals.judge import Judge, load_policy
from evals.trust import check_judges, shown
from resources.artifact_store import FsspecArtifactStore
from tests.support.judging import endpoint, faithful_rows, labelled, open_store, oracle, prompt_judge
from tests.support.teacher import Reply, teaching
from tests.unit.test_gate import BETTER, FLOOR, policy, result, share

FAITHFUL, PREFERENCE = (Judge(prompt_judge(name), "m") for name in ("faithfulness", "preference"))
RULE = load_policy("default")
ROWS = faithful_rows(50)
NOWHERE = endpoint("http://nowhere/v1")


@cache
def good() -> Calibration:
    """Of a judge that agrees with people."""
    with teaching(oracle(ROWS)) as server:
        return calibrate(FAITHFUL, endpoint(server.url), labelled(ROWS, FAITHFUL))


def calibrated(store: FsspecArtifactStore) -> FsspecArtifactStore:
    keep(store, good())
    return store


def test_a_calibration_holds_for_this_judge_alone(tmp_path):
    store = calibrated(open_store(tmp_path))
    assert seat(store, FAITHFUL, NOWHERE, RULE).untrusted == ""
    hotter = FAITHFUL.file.model_copy(update={"decoding": FAITHFUL.file.decoding.model_copy(update={"seed": 8})})
    for judge in (FAITHFUL._replace(model="m2"), Judge(hotter, "m"), PREFERENCE):
        sitting = seat(store, judge, NOWHERE, RULE)
        assert sitting.calibration is None
        assert "is not calibrated" in sitting.untrusted
    stricter = RULE.model_copy(update={"min_items": 100})
    assert "50 labelled items, min_items is 100" in seat(store, FAITHFUL, NOWHERE, stricter).untrusted


def test_a_later_calibration_of_the_same_judge_takes_the_place_of_the_earlier(tmp_path):
    store, other = calibrated(open_store(tmp_path)), faithful_rows(16)
    with teaching(lambda body, before: Reply("Verdict: faithful")) as server:
        keep(store, calibrate(FAITHFUL, endpoint(server.url), labelled(other, FAITHFUL)))
    assert "kappa 0.000" in seat(store, FAITHFUL, NOWHERE, RULE).untrusted


def judged_results(judged: Judged) -> dict[str, EvalResult]:
    return {
        "s/base": result(share(6), judged={"m": judged}),
        "s/candidate": result(share(60), judged={"m": judged}),
    }


def test_the_gate_passes_nothing_on_a_judge_that_does_not_count(tmp_path):
    store = calibrated(open_store(tmp_path))
    trusted = seat(store, FAITHFUL, NOWHERE, RULE)
    untrusted = seat(store, FAITHFUL._replace(model="m2"), NOWHERE, RULE)

    def outcomes(judged: Judged) -> tuple[list[str], str]:
        lines, decision, _ = evaluate_policy(policy(BETTER, FLOOR), judged_results(judged))
        return [line.outcome for line in lines], decision

    assert outcomes(trusted.judged(failed=0)) == (["pass", "pass"], "promote")
    assert outcomes(trusted.judged(failed=1)) == (["inconclusive"] * 2, "inconclusive")
    assert outcomes(untrusted.judged(failed=0)) == (["inconclusive"] * 2, "inconclusive")
    (line,), _, _ = evaluate_policy(policy(BETTER), judged_results(untrusted.judged(failed=0)))
    assert "judge faithfulness (m2) is not calibrated" in line.reason


def test_a_metric_is_shown_with_what_speaks_against_it(tmp_path):
    store = calibrated(open_store(tmp_path))
    trusted, other = seat(store, FAITHFUL, NOWHERE, RULE), seat(store, PREFERENCE, NOWHERE, RULE)
    for judged, told in (
        (trusted.judged(0), "m"),
        (trusted.judged(2), "m (no verdict on 4)"),
        (other.judged(0), "m (untrusted judge)"),
        (other.judged(1), "m (untrusted judge, no verdict on 2)"),
    ):
        assert shown("m", *judged_results(judged).values()) == told


def test_trust_that_the_calibration_does_not_bear_out_is_refused(tmp_path):
    store = calibrated(open_store(tmp_path))
    sitting = seat(store, FAITHFUL, NOWHERE, RULE)
    check_judges(store, judged_results(sitting.judged(0)))
    strict = store.put_manifest(
        JudgePolicy(name="strict", min_items=500, min_kappa=0.4, min_consistency=0.7, max_failed=0.1)
    )
    for change, said in [
        ({"calibration": None}, "names no calibration"),
        ({"calibration": FAITHFUL.identity}, "not to be had"),
        ({"judge": PREFERENCE.identity}, "names a calibration of"),
        ({"policy": strict}, "does not bear out: 50 labelled items"),
    ]:
        with pytest.raises(Refused, match=said):
            check_judges(store, judged_results(sitting.judged(0).model_copy(update=change)))
