"""How a model is served, as figures and as scores that a gate can bound."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Refused
from evals.serving_layer import METRICS, behind, behind_throughput, faults, figures, rows, throughput
from evals.serving_speed import Answer, Timed
from pipelines.cli import app
from tests.support.streaming import Pace, streaming


def answer(prompt: int, first: float = 0.1, between: float = 0.01, tokens: int = 11, error: str = "") -> Answer:
    seconds = first + between * (tokens - 1)
    return Answer(prompt=prompt, round=prompt // 2, seconds=seconds, first_token_s=first, tokens=tokens, error=error)


def test_figures_are_of_the_requests_that_were_answered():
    timed = Timed(
        answers=(*(answer(n, first=0.1 * (n + 1)) for n in range(20)), answer(20, error="x")), busy_s=(2.0, 2.0)
    )
    found = figures(timed)
    assert (found.requests, found.errors) == (21, {"x": 1})
    assert found.first_token_ms is not None
    assert found.token_ms is not None
    assert found.first_token_ms.payload() == pytest.approx({"p50": 1000, "p95": 1900, "p99": 2000})
    assert found.token_ms.p50 == pytest.approx(10)
    assert found.tokens_per_second == pytest.approx(55)
    nothing = figures(Timed(answers=(answer(0, error="x"),), busy_s=(1.0,)))
    assert (nothing.first_token_ms, nothing.token_ms, nothing.tokens_per_second) == (None, None, None)


def test_a_request_is_slow_or_not_and_one_that_failed_is_all_of_it():
    timed = Timed(
        answers=(answer(0), answer(1, first=0.6), answer(2, between=0.2), answer(3, error="x"), answer(4, tokens=1)),
        busy_s=(1.0,),
    )
    found = rows(timed, first_token_ms=500, token_ms=100)
    suites = dict.fromkeys(str(row["suite"]) for row in found)
    scores = {suite: [row["score"] for row in found if row["suite"] == suite] for suite in suites}
    assert len(suites) == len(METRICS)
    assert scores == {
        "serving-failed": [0, 0, 0, 1, 0],
        "serving-slow-first-token": [0, 1, 0, 1, 0],
        "serving-slow-token": [0, 0, 1, 1, 0],
    }
    assert [row["cluster"] for row in found[::3]] == [f"round-0000{n}" for n in (0, 0, 1, 1, 2)]


def test_without_counted_tokens_there_are_no_scores():
    timed = Timed(answers=(answer(0).model_copy(update={"tokens": None}),), busy_s=(1.0,))
    with pytest.raises(Refused, match="counts no tokens"):
        rows(timed, 500, 100)


def test_a_time_that_is_no_number_is_too_long():
    for odd in (answer(0, first=math.nan), answer(0, between=math.nan)):
        assert max(faults(odd, 500, 100).values()) == 1.0
        assert max(behind(odd, answer(0), 1.5).values()) == 1.0
    assert behind_throughput(math.nan, 1.0, 1.5) == 1.0


@pytest.mark.parametrize(
    ("own", "baseline", "expected"),
    [
        (answer(0, first=0.15), answer(0), (0, 0)),
        (answer(0, first=0.16), answer(0), (1, 0)),
        (answer(0, between=0.02), answer(0), (0, 1)),
        (answer(0, error="x"), answer(0), (1, 1)),
        (answer(0, error="x"), answer(0, error="x"), (1, 1)),
        (answer(0, first=9, between=9), answer(0, error="x"), (0, 0)),
        (answer(0, between=9), answer(0, tokens=1), (0, 0)),
    ],
    ids=["as fast", "late", "apart", "failed", "both failed", "only the baseline failed", "nothing to compare with"],
)
def test_a_request_is_behind_the_baselines_of_the_same_question_or_not(own, baseline, expected):
    assert tuple(behind(own, baseline, 1.5).values()) == expected


def test_throughput_is_of_a_round_and_what_wrote_nothing_is_behind():
    timed = Timed(answers=(answer(0), answer(1), answer(2, error="x"), answer(3, error="x")), busy_s=(2.0, 1.0))
    assert throughput(timed) == [11, 0]
    assert [behind_throughput(own, 12, 1.5) for own in (8.0, 7.9, 0.0)] == [0, 1, 1]
    assert [behind_throughput(own, 0, 1.5) for own in (1.0, 0.0)] == [0, 1]


def test_the_command_times_a_server_and_writes_what_the_gate_reads(tmp_path: Path):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "scores.jsonl"
    prompts.write_text("".join(json.dumps({"text": f"question {n}"}) + "\n" for n in range(10)))
    ways = {"question 5": Pace(status=500), "question 7": Pace(first=0.5)}
    with streaming(lambda text: ways.get(text, Pace(first=0.01))) as server:
        words = ["speed", "--endpoint", server.url, "--name", "m", "--prompts", str(prompts), "--warm-up", "2"]
        words += ["--first-token-ms", "400", "--token-ms", "400"]
        done = CliRunner().invoke(app, [*words, "--out", str(out), "--json"])
        assert done.exit_code == 0, done.exception
        few = CliRunner().invoke(app, [*words, "--warm-up", "10"])
    found = json.loads(done.stdout)
    assert (found["requests"], found["errors"]) == (8, {"status 500": 1})
    assert found["first_token_ms"]["p50"] < 400 < found["first_token_ms"]["p99"]
    written = [json.loads(line) for line in out.read_text().splitlines()]
    late = [row["item"] for row in written if row["suite"] == "serving-slow-first-token" and row["score"]]
    assert late == ["prompt-00005", "prompt-00007"]
    assert isinstance(few.exception, BadInput)
