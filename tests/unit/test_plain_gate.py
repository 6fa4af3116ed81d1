"""`assay gate` on plain files: its exit code is the verdict, and what is wrong with a file is said in one line."""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from pipelines.cli import app

Row = dict[str, Any]
ALL_KINDS = """
criteria:
  - {kind: superiority, suite: skill}
  - {kind: non-inferiority, suite: skill, margin: 0.1}
  - {kind: floor, suite: skill, margin: 0.2}
"""


def rows(values: Iterable[float], suite: str = "skill", cluster: Callable[[int], Any] | None = None) -> list[Row]:
    found: list[Row] = []
    for n, value in enumerate(values):
        found.append({"suite": suite, "item": f"i{n}", "score": value} | ({"cluster": cluster(n)} if cluster else {}))
    return found


class Desk:
    """A folder with a candidate's and a baseline's scores, and a policy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy(ALL_KINDS)

    def put(self, name: str, content: list[Row] | bytes) -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_bytes(
            content if isinstance(content, bytes) else b"".join(json.dumps(r).encode() + b"\n" for r in content)
        )
        return path

    def policy(self, text: str) -> None:
        (self.folder / "policy.yaml").write_text(text)

    def run(self, candidate: Any, baseline: Any, *more: str) -> Any:
        given = [
            "--candidate",
            str(self.put("candidate", candidate)),
            "--baseline",
            str(self.put("baseline", baseline)),
        ]
        return CliRunner().invoke(app, ["gate", *given, "--policy", str(self.folder / "policy.yaml"), *more])

    def judge(self, candidate: Any, baseline: Any, *more: str) -> dict[str, Any]:
        done = self.run(candidate, baseline, "--json", *more)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == {"promote": 0, "hold": 3, "inconclusive": 4}[found["decision"]]
        return found

    def fault(self, candidate: Any, baseline: Any, *more: str) -> str:
        done = self.run(candidate, baseline, *more)
        assert isinstance(done.exception, BadInput)  # `main` prints it in one line and exits with 2
        assert done.stdout == ""
        assert "\n" not in str(done.exception)
        return str(done.exception)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


LOW, HIGH = [float(n % 4 == 0) for n in range(80)], [float(n % 4 != 0) for n in range(80)]


@pytest.mark.parametrize(
    ("candidate", "baseline", "decision"),
    [(HIGH, LOW, "promote"), (LOW, HIGH, "hold"), (HIGH, HIGH, "inconclusive"), (HIGH[:6], LOW[:6], "inconclusive")],
)
def test_the_decision_is_the_exit_code(desk, candidate, baseline, decision):
    found = desk.judge(rows(candidate), rows(baseline))
    assert found["decision"] == decision


def test_people_see_a_line_for_each_criterion_with_its_reason(desk):
    done = desk.run(rows(HIGH) + rows([1.0], "aside"), rows(LOW))
    assert done.exit_code == 0
    for said in ("superiority-skill", "difference +0.500", "must lie above +0.000", "MDE", "80", "all 3 criteria pass"):
        assert said in done.stdout
    assert "suite aside (1 items) decides nothing" in done.stdout


def test_each_criterion_states_what_it_could_have_shown(desk):
    few, many = desk.judge(rows(HIGH[:20]), rows(LOW[:20])), desk.judge(rows(HIGH), rows(LOW))
    assert [line["n"] for line in many["criteria"]] == [80] * 3
    for less, more in zip(few["criteria"], many["criteria"], strict=True):
        assert 0 < more["mde"] < less["mde"]


def test_items_of_a_cluster_count_as_what_they_are(desk):
    """Ten conversations, each copied eight times, show no more than ten do."""
    copied = desk.judge(
        rows([v for v in HIGH[:10] for _ in range(8)], cluster=lambda n: n // 8),
        rows([v for v in LOW[:10] for _ in range(8)], cluster=lambda n: n // 8),
    )
    once = desk.judge(rows(HIGH[:10]), rows(LOW[:10]))
    assert [line["clusters"] for line in copied["criteria"]] == [10] * 3
    for one, other in zip(copied["criteria"], once["criteria"], strict=True):
        assert one["ci_low"] == pytest.approx(other["ci_low"])


def test_a_gain_within_the_noise_floor_does_not_pass_and_a_loss_within_it_does_not_hold(desk):
    better, worse = [max(0.0, v - 0.1) for v in HIGH], HIGH
    noisy = desk.put("again", rows([max(0.0, v - 0.4) for v in better]))
    desk.policy("criteria: [{kind: superiority, suite: skill}]")
    assert desk.judge(rows(worse), rows(better))["decision"] == "promote"
    (line,) = desk.judge(rows(worse), rows(better), "--rerun", str(noisy))["criteria"]
    assert (line["outcome"], line["noise"]) == ("inconclusive", pytest.approx(0.3))
    desk.policy("criteria: [{kind: non-inferiority, suite: skill, margin: 0.01}]")
    assert desk.judge(rows(better), rows(worse))["decision"] == "hold"
    noisy = desk.put("again", rows([max(0.0, v - 0.4) for v in worse]))
    assert desk.judge(rows(better), rows(worse), "--rerun", str(noisy))["decision"] == "inconclusive"
    desk.policy("criteria: [{kind: non-inferiority, suite: skill, margin: 0.01, noise: 0.3}]")
    assert desk.judge(rows(better), rows(worse))["decision"] == "inconclusive"


def test_a_policy_that_asks_for_re_runs_is_not_judged_without_them(desk):
    desk.policy("noise: {seeds: [11, 12], temperature: 0.7}\ncriteria: [{kind: superiority, suite: skill}]")
    again = [str(desk.put(name, rows(LOW))) for name in ("again", "once-more")]
    said = "asks for 2 re-runs of the baseline, and 1 are given: ask it again at temperature 0.7 with each of the seeds"
    assert f"{said} 11, 12 (`assay eval`)" in desk.fault(rows(HIGH), rows(LOW), "--rerun", again[0])
    given = [word for path in again for word in ("--rerun", path)]
    assert desk.judge(rows(HIGH), rows(LOW), *given)["criteria"][0]["noise"] == 0


def test_a_re_run_whose_judge_does_not_count_decides_nothing(desk):
    desk.policy("criteria: [{kind: superiority, suite: skill}]")
    again = desk.put("again", [row | {"untrusted": "not calibrated"} for row in rows(LOW)])
    (line,) = desk.judge(rows(HIGH), rows(LOW), "--rerun", str(again))["criteria"]
    assert (line["outcome"], line["reason"]) == ("inconclusive", "base: not calibrated")


def test_one_bad_result_in_a_large_family_is_weighed_by_holm(desk):
    """A loss that alone would hold a candidate back does not among 20 probes; a plain one does."""
    lost = [float(n >= 8) for n in range(40)]
    few = "  - {kind: non-inferiority, suite: s0, margin: 0}\n"
    desk.policy("criteria:\n" + few)
    suites = {f"s{n}": lost if n == 0 else [1.0] * 40 for n in range(20)}
    candidate = [row for suite, values in suites.items() for row in rows(values, suite)]
    baseline = [row for suite in suites for row in rows([1.0] * 40, suite)]
    assert desk.judge(candidate, baseline)["decision"] == "hold"
    alone = desk.judge(candidate, baseline)["criteria"][0]["p_hold"]
    desk.policy("criteria:\n" + "".join(few.replace("s0", suite) for suite in suites))
    together = desk.judge(candidate, baseline)
    assert together["criteria"][0]["p_hold"] == pytest.approx(min(1.0, 20 * alone))
    worse = [row for suite in suites for row in rows([0.0] * 40 if suite == "s0" else [1.0] * 40, suite)]
    assert desk.judge(worse, baseline)["reason"] == "failed: non-inferiority-s0"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40),
    clusters=st.integers(1, 40),
)
def test_raising_every_score_never_turns_promote_into_hold(desk, pairs, clusters):
    before = rows([b for b, _, _ in pairs], cluster=lambda n: n % clusters)
    lower = rows([c for _, c, _ in pairs], cluster=lambda n: n % clusters)
    higher = rows([c + (1 - c) * up for _, c, up in pairs], cluster=lambda n: n % clusters)
    first, then = desk.judge(lower, before)["decision"], desk.judge(higher, before)["decision"]
    assert (first, then) != ("promote", "hold")
    assert not (first == "inconclusive" and then == "hold")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40), st.integers(1, 12), st.randoms())
def test_the_order_of_rows_and_the_names_of_clusters_change_nothing(desk, pairs, clusters, shuffler):
    before = rows([b for b, _ in pairs], cluster=lambda n: n % clusters)
    after = rows([c for _, c in pairs], cluster=lambda n: n % clusters)
    first = desk.judge(after, before)
    for side in (before, after):
        shuffler.shuffle(side)
    renamed = [[row | {"cluster": f"z{(row['cluster'] * 7) % 13}"} for row in side] for side in (after, before)]
    then = desk.judge(*renamed)
    assert then["decision"] == first["decision"]
    for one, other in zip(first["criteria"], then["criteria"], strict=True):
        assert one["ci_low"] == pytest.approx(other["ci_low"], abs=1e-9)
        assert one["ci_high"] == pytest.approx(other["ci_high"], abs=1e-9)


def test_a_constant_on_both_sides_changes_no_difference(desk):
    draw = random.Random(3)
    pairs = [(draw.uniform(0, 0.5), draw.uniform(0, 0.5)) for _ in range(30)]
    desk.policy("criteria: [{kind: superiority, suite: skill}]")
    first = desk.judge(rows(c for _, c in pairs), rows(b for b, _ in pairs))["criteria"][0]
    then = desk.judge(rows(c + 0.25 for _, c in pairs), rows(b + 0.25 for b, _ in pairs))["criteria"][0]
    for field in ("effect", "ci_low", "ci_high", "mde"):
        assert then[field] == pytest.approx(first[field], abs=1e-9)


GOOD = rows(HIGH)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (b"", "candidate.jsonl is empty"),
        (b"score: 1\n", "line 1 is not JSON"),
        (b"[1]\n", "line 1 is a JSON list"),
        (b'{"suite": "skill", "item": "i0", "score": NaN}\n', "line 1 is not JSON: it holds NaN"),
        ([GOOD[0] | {"score": "0.5"}], "line 1: the field 'score' is '0.5'; give a number from 0 to 1"),
        ([GOOD[0] | {"score": None}], "line 1: the field 'score' is 'None'"),
        ([GOOD[0] | {"score": True}], "line 1: the field 'score' is 'True'"),
        (b'{"suite": "skill", "item": "i0", "score": 1e999}\n', "line 1 holds a value that JSON cannot carry"),
        ([GOOD[0] | {"score": 1.01}], "line 1: the field 'score' is '1.01'"),
        ([GOOD[0] | {"score": -1}], "line 1: the field 'score' is '-1'"),
        ([GOOD[0], GOOD[1] | {"suite": ""}], "line 2: the field 'suite' is ''; give a text"),
        ([GOOD[0], GOOD[1] | {"item": ["i1"]}], "line 2: the field 'item'"),
        ([GOOD[0], GOOD[1] | {"cluster": 1.5}], "line 2: the field 'cluster' is '1.5'"),
        ([GOOD[0] | {"metric": "m"}], "line 1: the field 'metric' is unknown"),
        ([{"suite": "skill", "score": 1}], "line 1: the field 'item' is missing"),
        ([*GOOD, GOOD[3]], "line 81: the field 'item': i3 of suite skill is on line 4; keep one"),
        ([GOOD[0] | {"item": 7}, GOOD[1] | {"item": "7"}], "line 2: the field 'item': 7 of suite skill is on line 1"),
        (GOOD[:-1], "candidate.jsonl lacks 1 of the 80 items that"),
        ([*GOOD, GOOD[0] | {"item": "more"}], "baseline.jsonl lacks 1 of the 81 items"),
        ([GOOD[0] | {"cluster": "x"}, *GOOD[1:]], "item i0 of suite skill has no cluster in"),
        ([row | {"suite": "other"} for row in GOOD], "candidate.jsonl has no row of suite skill, which criterion"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_that_says_where_and_what_to_do(desk, candidate, said):
    assert said in desk.fault(candidate, GOOD)


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_do_no_harm(desk):
    data = b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row).encode() for row in GOOD) + b"\r\n"
    assert desk.judge(data, rows(LOW))["decision"] == "promote"


def test_a_rerun_must_be_of_the_same_items(desk):
    assert "again.jsonl lacks 1 of the 80" in desk.fault(GOOD, rows(LOW), "--rerun", str(desk.put("again", GOOD[:-1])))
    other = desk.put("again", rows(HIGH, "other"))
    assert "no row of suite skill: run the whole baseline again" in desk.fault(GOOD, rows(LOW), "--rerun", str(other))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            "criteria: [{kind: superiority, suite: absent}]",
            "has no row of suite absent, which criterion superiority-absent",
        ),
        ("criteria: [{kind: superiority, suite: skill, metric: exact}]", "leave `metric` out"),
        ("criteria: [{kind: superiority}]", "criteria.0.suite: Field required"),
        ("criteria: [{kind: floor, suite: skill}]", "criteria.0.margin: Field required"),
        ("criteria: [{kind: better, suite: skill}]", "criteria.0.kind"),
        ("criteria: [{kind: superiority, suite: skill, colour: red}]", "colour"),
        ("criteria: [{kind: superiority, suite: s}, {kind: superiority, suite: s}]", "give each its own `name`"),
        ("criteria: [{kind: floor, suite: skill, margin: 0.5, chance: 0.2}]", "of a baseline"),
        (
            "confidence: 0.999\nresamples: 1000\ncriteria: [{kind: superiority, suite: s}]",
            "`resamples` of 20000 or more",
        ),
        ("criteria: []", "criteria"),
        ("- superiority", "policy.yaml"),
        ("criteria: [", "policy.yaml is not YAML"),
        ("", "policy.yaml"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(desk, policy, said):
    desk.policy(policy)
    assert said in desk.fault(GOOD, rows(LOW))


def test_files_that_are_not_there_are_named(desk, tmp_path):
    desk.put("candidate", GOOD)
    command = ["gate", "--candidate", str(tmp_path / "candidate.jsonl"), "--baseline", str(tmp_path / "none.jsonl")]
    done = CliRunner().invoke(app, [*command, "--policy", str(tmp_path / "policy.yaml")])
    assert "none.jsonl does not exist" in str(done.exception)
    done = CliRunner().invoke(app, [*command, "--policy", str(tmp_path / "none.yaml")])
    assert "none.yaml cannot be read" in str(done.exception)
