"""A judge is asked as its file says, its verdict is read or has failed, and agreement with people makes it count."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Refused, Unavailable
from data_contracts.judging import Calibration, JudgePolicy
from data_contracts.verdicts import EvalResult, Judged
from evals.calibration import calibrate, keep, read_set, seat
from evals.gate import evaluate_policy
from evals.judge import Judge, PromptJudge, SetMapping, judge_all, load_judge, load_policy, read_verdict, request
from evals.trust import check_judges
from pipelines import judge_cli
from pipelines.cli import app
from pipelines.wiring import Line, Settings
from resources.artifact_store import FsspecArtifactStore
from resources.openai_endpoint import OpenAiEndpoint
from tests.support.judging import faithful_rows, oracle, paired_rows, prompt_judge, prompt_of
from tests.support.ports import free_ports
from tests.support.teacher import Body, Reply, teaching
from tests.unit.test_gate import BETTER, FLOOR, policy, result, share

FAITHFUL, PREFERENCE = (Judge(prompt_judge(name), "m") for name in ("faithfulness", "preference"))
RULE = load_policy("default")


def endpoint(url: str, **more: Any) -> OpenAiEndpoint:
    return OpenAiEndpoint(url, retries=1, patient=True, **({"timeout": 5.0} | more))


def labelled(rows: list[dict[str, Any]], judge: Judge = FAITHFUL) -> Any:
    return read_set(enumerate(rows), judge.file.set, "set.jsonl")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("It says so.\nVerdict: faithful", "faithful"),
        ("**Verdict: Unfaithful.**\n\n", "unfaithful"),
        ('{"verdict": "faithful"}', "faithful"),
        ("FAITHFUL", "faithful"),
        ("Final verdict - unfaithful!", "unfaithful"),
        ("Verdict: faithful or unfaithful", None),
        ("Verdict: faithful\nor is it?", None),
        ("Verdict: not faithful", None),
        ("Verdict: NaN", None),
        ("The response is faithful", None),
        ("", None),
        ("\n...\n", None),
    ],
)
def test_a_verdict_is_the_last_line_and_nothing_else(text, word):
    assert read_verdict(text, ("faithful", "unfaithful")) == word


def test_judged_texts_cannot_put_in_other_texts():
    body = request(FAITHFUL, {"context": "{response}", "question": "{context}", "response": "secret"})
    assert prompt_of(body).count("secret") == 1
    assert "{context}" in prompt_of(body)


def test_a_judge_is_another_one_when_model_prompt_or_decoding_change_and_not_when_the_set_does():
    def changed(**values: Any) -> str:
        return Judge(PromptJudge.model_validate(PREFERENCE.file.model_dump() | values), "m").identity

    same = PREFERENCE.identity
    assert changed() == same
    columns = {"question": "q", "first": "a", "second": "b"}
    assert changed(set={"columns": columns, "label": "l", "labels": {"1": "A"}}) == same
    others = [
        PREFERENCE._replace(model="m2").identity,
        PREFERENCE._replace(template="{{ messages }}").identity,
        changed(prompt=PREFERENCE.file.prompt + " "),
        changed(system="You judge."),
        changed(decoding={"max_tokens": 256, "temperature": 0.1}),
        FAITHFUL.identity,
    ]
    assert len({same, *others}) == 7


def test_pairs_are_asked_in_both_orders_and_a_judge_of_places_contradicts_itself():
    def always_a(body: Body, before: int) -> Reply:
        return Reply("Verdict: A")

    rows = paired_rows(60)
    with teaching(oracle(rows)) as server:
        good = calibrate(PREFERENCE, endpoint(server.url), labelled(rows, PREFERENCE))
        assert len(server.seen) == 120
    with teaching(always_a) as server:
        bad = calibrate(PREFERENCE, endpoint(server.url), labelled(rows, PREFERENCE))
    assert (good.kappa, good.consistency, good.first_place, good.distrust(RULE)) == (1, 1, 0.5, "")
    assert (bad.consistency, bad.first_place, bad.agreement) == (0, 1, 0)
    assert bad.counts == {"A": {"inconsistent": 30}, "B": {"inconsistent": 30}}
    assert "consistency 0.000" in bad.distrust(RULE)


def test_every_way_of_failing_is_counted_and_none_is_left_out():
    rows = faithful_rows(60)
    right = oracle(rows)
    ways = [Reply(""), Reply("I cannot say."), Reply(status=500), Reply(delay=3), Reply("Verdict: NaN")]
    ways += [Reply(raw="<html>gateway</html>"), Reply(status=400)]

    def reply(body: Body, before: int) -> Reply:
        row = next(n for n, row in enumerate(rows) if row["response"] in prompt_of(body))
        return ways[row] if row < len(ways) else right(body, before)

    with teaching(reply) as server:
        found = calibrate(FAITHFUL, endpoint(server.url, timeout=1), labelled(rows))
    assert found.failures == {
        "empty answer": 1,
        "no verdict in the answer": 2,
        "no answer in time": 1,
        "the answer is no chat completion": 1,
        "the endpoint answered with status 400": 1,
        "the endpoint answered with status 500": 1,
    }
    assert (found.items, found.asked) == (60, 60)
    assert sum(sum(row.values()) for row in found.counts.values()) == 60
    assert found.agreement == 53 / 60
    assert "7 of 60 questions got no verdict" in found.distrust(RULE)


def test_an_endpoint_that_always_fails_is_a_bad_judge_and_one_that_is_not_there_is_an_error():
    rows = faithful_rows(40)
    with teaching(lambda body, before: Reply(status=503)) as server:
        found = calibrate(FAITHFUL, endpoint(server.url), labelled(rows))
    assert (found.kappa, found.failures) == (0, {"the endpoint answered with status 503": 40})
    with pytest.raises(Unavailable, match="failed 8 times in a row"):
        calibrate(FAITHFUL, endpoint(f"http://127.0.0.1:{free_ports(1)[0]}/v1"), labelled(rows))
    with teaching(lambda body, before: Reply(status=404)) as server, pytest.raises(Unavailable, match="--model"):
        calibrate(FAITHFUL, endpoint(server.url), labelled(rows))


def test_a_rubric_gives_scores_between_nothing_and_all():
    judge = Judge(prompt_judge("reply-quality"), "m")
    with teaching(lambda body, before: Reply("Fine.\nVerdict: 4")) as server:
        (verdict,) = judge_all(judge, endpoint(server.url), {"i": {"question": "q", "response": "r"}}).values()
    assert (verdict.word, verdict.score) == ("4", 0.75)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"begin_label": "maybe"}, "line 3: the label 'maybe' in 'begin_label' is none of 'Fully attributable'"),
        ({"knowledge": None}, "line 3: the column 'knowledge' is no text"),
        ({"begin_label": None}, "line 3: the column 'begin_label' holds no value"),
    ],
)
def test_a_row_that_does_not_fit_is_named(change, said):
    rows = faithful_rows(10)
    rows[2] |= change
    with pytest.raises(BadInput, match=said):
        labelled(rows)


def test_labels_that_a_mapping_leaves_out_are_counted():
    mapping = FAITHFUL.file.set
    wanted = SetMapping.model_validate(mapping.model_dump() | {"labels": mapping.labels | {"Generic": None}})
    rows = faithful_rows(10)
    rows[4]["begin_label"] = "Generic"
    found = read_set(enumerate(rows), wanted, "set.jsonl")
    assert (len(found.items), found.left_out) == (9, 1)


def test_a_set_with_one_label_only_is_refused_before_anything_is_asked():
    rows = [row | {"begin_label": "Fully attributable"} for row in faithful_rows(20)]
    with teaching(oracle(rows)) as server:
        with pytest.raises(BadInput, match="same label"):
            calibrate(FAITHFUL, endpoint(server.url), labelled(rows))
        assert not server.seen


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdicts": {"A": 1, "B": 0.2}}, "one word each for 1, 0"),
        ({"verdicts": {"A": 1, "failed": 0}}, "no words for a verdict"),
        ({"prompt": "{question} {first}"}, "needs the places"),
        ({"prompt": "{question} {first} {second} {reference}"}, "no column for reference"),
        (
            {"set": {"columns": {"question": "q", "first": "a", "second": "b"}, "label": "l", "labels": {"1": "C"}}},
            "C is",
        ),
    ],
)
def test_a_judge_file_that_does_not_fit_is_refused(tmp_path, change, said):
    path = tmp_path / "judge.yaml"
    path.write_text(json.dumps(PREFERENCE.file.model_dump(mode="json") | change))
    with pytest.raises(BadInput, match=said):
        load_judge(str(path))


# What a calibration is worth to the gate.


def calibrated(store: FsspecArtifactStore, rows: list[dict[str, Any]], judge: Judge = FAITHFUL) -> Calibration:
    with teaching(oracle(rows)) as server:
        found = calibrate(judge, endpoint(server.url), labelled(rows))
    keep(store, found)
    return found


def test_a_calibration_holds_for_this_judge_and_this_set_alone(tmp_path):
    store, server = FsspecArtifactStore(str(tmp_path / "store"), tmp_path / "cache"), endpoint("http://nowhere/v1")
    found = calibrated(store, faithful_rows(60))
    assert seat(store, FAITHFUL, server, found.set, RULE).untrusted == ""
    hotter = FAITHFUL.file.model_copy(update={"decoding": FAITHFUL.file.decoding.model_copy(update={"seed": 8})})
    for judge, where in [
        (FAITHFUL._replace(model="m2"), found.set),
        (Judge(hotter, "m"), found.set),
        (FAITHFUL, labelled(faithful_rows(62)).digest),
        (FAITHFUL, None),
    ]:
        sitting = seat(store, judge, server, where, RULE)
        assert sitting.calibration is None
        assert "is not calibrated" in sitting.untrusted
    stricter = RULE.model_copy(update={"min_items": 100})
    assert "60 labelled items, min_items is 100" in seat(store, FAITHFUL, server, found.set, stricter).untrusted


def test_a_later_calibration_of_the_same_judge_on_the_same_set_takes_the_place_of_the_earlier(tmp_path):
    store = FsspecArtifactStore(str(tmp_path / "store"), tmp_path / "cache")
    rows = faithful_rows(60)
    good = calibrated(store, rows)
    with teaching(lambda body, before: Reply("Verdict: faithful")) as server:
        keep(store, calibrate(FAITHFUL, endpoint(server.url), labelled(rows)))
    assert "kappa 0.000" in seat(store, FAITHFUL, endpoint("http://nowhere/v1"), good.set, RULE).untrusted


def judged_results(judged: Judged) -> dict[str, EvalResult]:
    return {
        "s/base": result(share(6), judged={"m": judged}),
        "s/candidate": result(share(60), judged={"m": judged}),
    }


def test_the_gate_passes_nothing_on_a_judge_that_does_not_count(tmp_path):
    store = FsspecArtifactStore(str(tmp_path / "store"), tmp_path / "cache")
    rows, server = faithful_rows(60), endpoint("http://nowhere/v1")
    trusted = seat(store, FAITHFUL, server, calibrated(store, rows).set, RULE)
    untrusted = seat(store, FAITHFUL._replace(model="m2"), server, labelled(rows).digest, RULE)

    def outcomes(judged: Judged) -> tuple[list[str], str]:
        lines, decision, _ = evaluate_policy(policy(BETTER, FLOOR), judged_results(judged))
        return [line.outcome for line in lines], decision

    assert outcomes(trusted.judged(failed=0)) == (["pass", "pass"], "promote")
    assert outcomes(trusted.judged(failed=1)) == (["inconclusive"] * 2, "inconclusive")
    assert outcomes(untrusted.judged(failed=0)) == (["inconclusive"] * 2, "inconclusive")
    (line,), _, _ = evaluate_policy(policy(BETTER), judged_results(untrusted.judged(failed=0)))
    assert "judge faithfulness (m2) is not calibrated" in line.reason


def test_trust_that_the_calibration_does_not_bear_out_is_refused(tmp_path):
    store = FsspecArtifactStore(str(tmp_path / "store"), tmp_path / "cache")
    sitting = seat(store, FAITHFUL, endpoint("http://nowhere/v1"), calibrated(store, faithful_rows(60)).set, RULE)
    check_judges(store, judged_results(sitting.judged(0)))
    strict = store.put_manifest(
        JudgePolicy(name="strict", min_items=500, min_kappa=0.4, min_consistency=0.7, max_failed=0.1)
    )
    for change, said in [
        ({"calibration": None}, "names no calibration"),
        ({"calibration": FAITHFUL.identity}, "not to be had"),
        ({"judge": PREFERENCE.identity}, "names a calibration of"),
        ({"policy": strict}, "does not bear out: 60 labelled items"),
    ]:
        with pytest.raises(Refused, match=said):
            check_judges(store, judged_results(sitting.judged(0).model_copy(update=change)))


# The command.


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    made = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust"))
    monkeypatch.setattr(judge_cli, "Line", lambda: made)
    return made


def command(url: str, rows: list[dict[str, Any]], folder: Path, *more: str) -> Result:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = "faithfulness" if "knowledge" in rows[0] else "preference"
    words = ["--endpoint", url, "--model", "m", "--set", str(path), "--task", task, *more]
    return CliRunner().invoke(app, ["judge", "calibrate", *words])


@pytest.mark.parametrize("rows", [faithful_rows(60), paired_rows(60)], ids=["faithfulness", "preference"])
def test_the_command_trusts_an_oracle_and_keeps_its_calibration(line, tmp_path, rows):
    with teaching(oracle(rows)) as server:
        done = command(server.url, rows, tmp_path, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["trusted"]
    kept = line.store.get_manifest(told["calibration"], Calibration)
    assert kept.kappa == told["kappa"] == 1
    assert not {"knowledge", "response", "output_1"} & set(kept.payload())
    assert rows[0].get("response", "no such text") not in json.dumps(kept.payload())


def test_the_command_says_why_a_judge_is_not_trusted(line, tmp_path):
    with teaching(lambda body, before: Reply("Verdict: faithful")) as server:
        done = command(server.url, faithful_rows(60), tmp_path)
    assert done.exit_code == 3
    assert "untrusted: kappa 0.000 [0.000, 0.000], min_kappa is 0.4 (policy default)" in done.output


def test_the_command_reads_other_columns_by_a_mapping_and_a_sample_of_them(line, tmp_path):
    rows = faithful_rows(80)
    renamed = [
        {"doc": r["knowledge"], "q": r["message"], "a": r["response"], "ok": r["begin_label"][0] == "F"} for r in rows
    ]
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(
        "columns: {context: doc, question: q, response: a}\n"
        "label: ok\nlabels: {'true': faithful, 'false': unfaithful}\n"
    )
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in renamed))
    words = ["--model", "m", "--set", str(path), "--task", "faithfulness", "--mapping", str(mapping), "--sample", "60"]
    with teaching(oracle(rows)) as server:
        done = CliRunner().invoke(app, ["judge", "calibrate", "--endpoint", server.url, *words, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["items"]) == (0, 60), done.output


@pytest.mark.parametrize(
    "more", [("--task", "no-such"), ("--policy", "no-such"), ("--mapping", "no.yaml"), ("--template", "no.jinja")]
)
def test_wrong_files_are_bad_input(line, tmp_path, more):
    done = command("http://127.0.0.1:9/v1", faithful_rows(10), tmp_path, *more)
    assert isinstance(done.exception, BadInput)
