"""Judged metrics on the way that every evaluation takes: left out without a judge, shown as untrusted, trusted once it
is calibrated; and nothing is asked twice. One HTTP server answers for models and judge."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import BadInput, Refused
from data_contracts.verdicts import EvalResult, GateVerdict, LayerResults
from evals.calibration import calibrate, keep
from evals.decoding import Decoding
from evals.gate import decide
from evals.judge import Judge, load_judge, load_policy
from evals.judging import JUDGES
from evals.kept import Respondent
from evals.policy import load_policy as load_gate_policy
from evals.protocols import JudgeModel, Question
from evals.report import measures, sections
from evals.run import Way, evaluate, evaluate_layer
from evals.suite import load_suite, load_suites, protected_texts
from pipelines.cli import app
from pipelines.settings import Settings
from pipelines.stages.release.candidate import register
from pipelines.stages.release.spotcheck import sheet
from pipelines.wiring import Line
from resources.answer_store import SqliteAnswers
from tests.support import judging
from tests.support.judging import endpoint, grade, labelled, ragas_oracle, tagged
from tests.support.line import REPORT, SmallLine
from tests.support.teacher import Body, Reply, TeacherServer, teaching

TERMS = {"description": "d", "unit": "u", "cluster": "c", "direction": "higher-is-better", "licence": "CC0-1.0"}
TERMS |= {"origin": "hand-written", "data": "items.jsonl"}
ITEMS = 10

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


def write_suite(folder: Path, items: list[dict[str, Any]], **fields: Any) -> Path:
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "suite.yaml").write_text(yaml.safe_dump(TERMS | fields))
    return folder / "suite.yaml"


def graded_suite(folder: Path) -> Path:
    items = [
        {"id": f"i{n}", "cluster": f"c{n}", "text": f"Question {n}?", "answers": ["good"], "rubric": ["says good"]}
        for n in range(ITEMS)
    ]
    asked = {"asks": "questions", "metrics": ["contains", "rubric"], "headline": "contains"}
    return write_suite(folder, items, name="replies", layer="product", **asked)


def calibrated(line: Any, url: str, metric: str, rows: list[dict[str, Any]], model: str = "judge") -> None:
    judge = Judge(load_judge(JUDGES[metric]), model)
    keep(line.store, calibrate(judge, endpoint(url), labelled(rows, judge)))


def asked_of(server: TeacherServer, *models: str) -> int:
    return sum(body["model"] in models for body in server.bodies)


# The line.


class Helpdesk:
    """A small line whose product names a suite of passages; its base invents, its candidate repeats the passages."""

    def __init__(self, folder: Path, server: TeacherServer) -> None:
        self.small = SmallLine(folder)
        items = [
            {
                "id": f"p{n}",
                "cluster": f"c{n}",
                "text": f"What does box {n} cost?",
                "contexts": [f"The store sells box {n} for {n} coins in spring.", "It closes at noon."],
                "reference": f"It costs {n} coins.",
            }
            for n in range(ITEMS)
        ]
        asked = {"asks": "passages", "metrics": ["rouge_l", "faithfulness"], "headline": "faithfulness"}
        write_suite(folder, items, name="help", layer="rag", **asked)
        better = {"name": "faithful", "kind": "superiority", "suite": "help", "metric": "faithfulness"}
        (folder / "gate.yaml").write_text(yaml.safe_dump({"resamples": 1000, "criteria": [better]}))
        self.small.server.url = lambda: server.url  # type: ignore[method-assign]
        self.model = self.small.candidate()

    def line(self, **settings: Any) -> Line:
        made = Line(self.small.parts.settings.model_copy(update=settings))
        made.__dict__.update(server=self.small.server, registry=self.small.registry, embedder=judging.Letters())
        return made

    def evaluated(self, line: Line) -> tuple[LayerResults, bool]:
        return evaluate_layer(line, self.small.product, "product", self.small.base, self.model, None)

    def decided(self, line: Line, layer: LayerResults) -> GateVerdict:
        return decide(line, self.small.product, self.model, [layer])[0]


def answers_of_all(body: Body, before: int) -> Reply:
    if body["model"] == "judge":
        return ragas_oracle(body)
    first = re.search(r"\[1\] (.*)", body["messages"][-1]["content"])
    assert first
    return Reply("Zebras pay nothing." if body["model"] == "base" else first[1])


def results_of(line: Line, layer: LayerResults) -> dict[str, EvalResult]:
    return {name: line.store.get_manifest(digest, EvalResult) for name, digest in layer.results.items()}


def test_a_rag_suite_of_a_product_is_left_out_then_untrusted_then_decides(tmp_path, caplog):
    with teaching(answers_of_all) as server:
        desk = Helpdesk(tmp_path / "desk", server)
        product = desk.small.product
        policy = load_gate_policy(product.file("gate_policy", product.gate_policy))
        assert protected_texts(product)["help/p3"] == "What does box 3 cost?"

        bare = desk.line()
        layer, _ = desk.evaluated(bare)
        results = results_of(bare, layer)
        assert "suite help: faithfulness: not measured, as this asks a judge model: set ASSAY_JUDGE_URL" in caplog.text
        assert all(set(item.scores) == {"rouge_l"} for item in results["help/candidate"].items)
        with pytest.raises(Refused, match=r"no metric faithfulness .* set ASSAY_JUDGE_URL and ASSAY_JUDGE_MODEL"):
            desk.decided(bare, layer)
        (section,) = sections(policy, load_suites(product), results)
        assert (section.by_item[0].metric, [row.metric for row in section.rows]) == ("rouge_l", ["rouge_l"])
        assert section.description == "d. Not measured, for want of a judge model: faithfulness"
        asked = asked_of(server, "base", desk.model.weights)
        assert asked == 2 * ITEMS

        easy = {"name": "easy", "min_items": 16, "min_kappa": 0.4, "min_consistency": 0.6, "max_failed": 0.3}
        (tmp_path / "easy.yaml").write_text(yaml.safe_dump(easy))
        line = desk.line(judge_url=server.url, judge_model="judge", judge_policy=str(tmp_path / "easy.yaml"))
        layer, hit = desk.evaluated(line)
        assert not hit
        results = results_of(line, layer)
        means = {name: sum(item.scores["faithfulness"] for item in each.items) for name, each in results.items()}
        assert means == {"help/base": 0, "help/candidate": ITEMS}
        verdict = desk.decided(line, layer)
        assert (verdict.decision, verdict.criteria[0].outcome) == ("inconclusive", "inconclusive")
        assert "judge ragas-faithfulness (judge) is not calibrated" in verdict.criteria[0].reason
        (section,) = sections(policy, load_suites(product), results)
        assert "faithfulness (untrusted judge)" in [row.metric for row in section.rows]
        assert "faithfulness (untrusted judge)" in [each.metric for each in measures(policy, results)]

        rows = judging.faithful_rows(16)
        calibrated(line, server.url, "faithfulness", [r | {"knowledge": f"{r['knowledge']} They sell."} for r in rows])
        before = asked_of(server, "judge")
        layer, hit = desk.evaluated(line)
        assert not hit
        verdict = desk.decided(line, layer)
        assert verdict.decision == "promote"
        assert desk.evaluated(line) == (layer, True)
        assert asked_of(server, "judge") == before
        assert asked_of(server, "base", desk.model.weights) == asked

    release, _ = register(line, product, desk.model, verdict, REPORT)
    for row in sheet(line, product, release.digest, 3):
        assert "[2] It closes at noon.\n\nQuestion: What does box" in row["question"]
        assert row["expected"].startswith("It costs")


# The command.


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    for name in ("URL", "MODEL", "KEY_ENV"):
        monkeypatch.delenv(f"ASSAY_JUDGE_{name}", raising=False)

    def invoke(*words: Any) -> Result:
        done = CliRunner().invoke(app, [str(word) for word in words])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return invoke


def replies(body: Body, before: int) -> Reply:
    """``tuned`` says what is good. Of either's answer to question 3 the judge gives no verdict the first time."""
    if body["model"] != "judge":
        return Reply(f"good, {body['messages'][-1]['content']}" if body["model"] == "tuned" else "bad")
    silent = tagged(body, "message") == "Question 3?" and before == 0
    return Reply("I cannot say.") if silent else grade(body)


def test_the_command_leaves_out_shows_as_untrusted_and_then_trusts(run, tmp_path):
    suite, policy = graded_suite(tmp_path), tmp_path / "policy.yaml"
    policy.write_text("criteria: [{kind: superiority, suite: replies}]\n")
    graded = tmp_path / "graded.jsonl"
    graded.write_text("".join(json.dumps(row) + "\n" for row in judging.graded_rows(50)))
    scores = {name: tmp_path / f"{name}.jsonl" for name in ("tuned", "poor")}
    with teaching(replies) as server:
        server.models = ("tuned", "poor", "judge")
        asked = ["eval", "--suite", suite, "--endpoint", server.url, "--name"]

        done = run(*asked, "tuned")
        assert "replies: rubric: not measured" in done.stderr
        assert "--judge-url" in done.stderr
        assert re.search(r"contains +10 +1\.000", done.stdout)
        assert "rubric" not in done.stdout
        with pytest.raises(BadInput, match="--out: suite replies: rubric: not measured"):
            run(*asked, "tuned", "--metric", "rubric", "--out", scores["tuned"])

        def evaluated() -> str:
            more = ["--judge-url", server.url, "--judge-model", "judge", "--metric", "rubric"]
            return "".join(run(*asked, name, *more, "--out", path).stdout for name, path in scores.items())

        def gated() -> Result:
            return run("gate", "--candidate", scores["tuned"], "--baseline", scores["poor"], "--policy", policy)

        told = evaluated()
        assert re.search(r"rubric +10 +0\.900 +untrusted +1 *\n", told)
        assert "replies, rubric: passes no gate: judge reply-quality (judge) is not calibrated" in told
        verdict = gated()
        assert verdict.exit_code == 4
        assert "candidate: judge reply-quality (judge) is not calibrated" in verdict.output

        words = ("--endpoint", server.url, "--model", "judge", "--set", graded, "--task", "reply-quality")
        assert run("judge", "calibrate", *words).exit_code == 0
        models, judges = asked_of(server, "tuned", "poor"), asked_of(server, "judge")
        assert re.search(r"rubric +10 +1\.000 +trusted +0 *\n", evaluated())
        assert asked_of(server, "tuned", "poor") == models == 2 * ITEMS
        assert asked_of(server, "judge") == judges + 2
        assert gated().exit_code == 0


# What a result hangs on.


class Kept:
    """Where results are kept, and a model that counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.store, self.answers = judging.open_store(folder), SqliteAnswers(folder / "answers.sqlite")
        self.judge: JudgeModel | None = None
        self.asked = 0

    def engine(self) -> str:
        return "fake 1"

    def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
        for key in questions:
            self.asked += 1
            answered(key, f"good {self.asked}")

    def lm(self) -> Any:
        raise AssertionError("no suite here is lm-eval's")


def test_another_judge_and_a_new_calibration_make_another_result_and_the_answers_stay(tmp_path):
    suite, home = load_suite(graded_suite(tmp_path)), Kept(tmp_path)
    who = Respondent(sha256_bytes(b"artifact"), sha256_bytes(b"base"), "fake", lambda: home)

    with teaching(grade) as server:

        def by(model: str) -> tuple[EvalResult, bool, int]:
            """Result, whether it was remembered, and how often the judge was asked for it."""
            home.judge = JudgeModel(endpoint(server.url), model, "", load_policy("default"))
            before = server.seen.total()
            result, hit = evaluate(home, suite, who, Way("", Decoding(max_tokens=8)), lambda *_: None)
            return result, hit, server.seen.total() - before

        first, hit, times = by("one")
        assert (hit, times) == (False, ITEMS)
        assert by("one") == (first, True, 0)
        other, hit, times = by("two")
        assert (hit, times, other.items) == (False, ITEMS, first.items)
        assert first.judged["rubric"].untrusted
        calibrated(home, server.url, "rubric", judging.graded_rows(50), "two")
        trusted, hit, times = by("two")
        assert (hit, times, trusted.judged["rubric"].untrusted) == (False, 0, "")
        assert by("two") == (trusted, True, 0)
        assert by("one") == (first, True, 0)
    assert home.asked == ITEMS
    assert len({each.action_key for each in (first, other, trusted)}) == 3


def test_nothing_but_judged_metrics_and_no_judge_is_an_error(tmp_path):
    suite = load_suite(graded_suite(tmp_path)).model_copy(update={"metrics": ("rubric",), "headline": "rubric"})
    home = Kept(tmp_path)
    who = Respondent(sha256_bytes(b"artifact"), sha256_bytes(b"base"), "fake", lambda: home)
    with pytest.raises(BadInput, match="suite replies: rubric: not measured"):
        evaluate(home, suite, who, Way("", Decoding(max_tokens=8)), lambda *_: None)
    assert home.asked == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judge_model": "m"}, "set both ASSAY_JUDGE_URL and ASSAY_JUDGE_MODEL"),
        ({"judge_url": "http://h/v1"}, "set both"),
        ({"judge_url": "h", "judge_model": "m"}, "is no address"),
        ({"judge_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY .ASSAY_JUDGE_KEY_ENV.: set it"),
        ({"judge_template": Path("no.jinja")}, "no.jinja is no file"),
        ({"judge_policy": "no-such"}, "no-such"),
    ],
)
def test_half_a_judge_is_refused(settings, said, tmp_path):
    whole = {} if {"judge_url", "judge_model"} & settings.keys() else {"judge_url": "http://h/v1", "judge_model": "m"}
    with pytest.raises(BadInput, match=said):
        _ = Line(Settings(home=tmp_path, **whole, **settings)).judge


def test_a_judge_gets_its_key_from_the_variable_that_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_KEY", "secret")
    line = Line(Settings(home=tmp_path, judge_url="http://h/v1/", judge_model="m", judge_key_env="MY_KEY"))
    assert line.judge is not None
    assert (line.judge.endpoint.url, line.judge.endpoint.key, line.judge.model) == ("http://h/v1", "secret", "m")
    assert "secret" not in line.settings.model_dump_json()
