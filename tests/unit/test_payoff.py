"""The payoff sheet: the same prompts in turns, every failure told, prices and quality as they are."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.digests import sha256_bytes
from data_contracts.errors import BadInput, Unavailable
from data_contracts.verdicts import ItemScore
from evals.payoff import Payoff, compare_quality, pages, payoff, write
from evals.serving_speed import Answer, Served, Timed, compare
from pipelines.cli import app
from tests.support.streaming import Pace, streaming

PROMPTS = [[{"role": "user", "content": f"question {number}"}] for number in range(26)]


def served(name: str, url: str, price: float = 3.6) -> Served:
    return Served(name=name, url=url, model=f"the-{name}", price=price)


def sheet(timed: tuple[Timed, Timed], prices: tuple[float, float] = (3.6, 0.36), quality: Any = ()) -> Payoff:
    sides = served("teacher", "u", prices[0]), served("student", "u", prices[1])
    return payoff(sides, timed, quality, sha256_bytes(b"prompts"), 2, 2, 16, "EUR")


def test_both_get_the_same_prompts_in_turns_and_the_faster_one_is_seen_to_be_faster() -> None:
    slow, fast = Pace(first=0.06, between=0.01), Pace(first=0.01, between=0.001)
    with streaming(lambda text: slow) as teacher, streaming(lambda text: fast) as student:
        timed = compare((served("teacher", teacher.url), served("student", student.url)), PROMPTS, 16, 2, 2)
        assert Counter(teacher.texts()) == Counter(student.texts()) == Counter(f"question {n}" for n in range(26))
        firsts = [
            min(
                (when, side)
                for side, server in enumerate((teacher, student))
                for when, body in server.asked[at : at + 2]
            )
            for at in range(2, 26, 2)
        ]
        assert [side for _, side in firsts] == [0, 1] * 6
        assert all(body["temperature"] == 0 and body["max_tokens"] == 16 for _, body in teacher.asked)
    found = sheet(timed)
    assert (found.asked, found.paired, found.teacher.errors, found.student.errors) == (24, 24, {}, {})
    assert found.teacher.p50_s is not None
    assert found.student.p50_s is not None
    assert found.teacher.first_token_s is not None
    assert 0.09 <= found.teacher.p50_s <= found.teacher.p99_s  # type: ignore[operator]
    assert 0.06 <= found.teacher.first_token_s < found.teacher.p50_s
    assert found.student.p50_s < found.teacher.p50_s
    assert {ratio.name: ratio.high < 1 for ratio in found.ratios}["p50_s"]
    assert found.teacher.tokens == found.student.tokens == 96
    assert found.cost_ratio is not None
    assert found.cost_ratio < 0.1


def test_failures_are_told_on_their_side_and_their_partner_is_not_timed() -> None:
    ways = {
        "question 5": Pace(status=500),
        "question 9": Pace(breaks=True),
        "question 11": Pace(words=0),
        "question 12": Pace(status=500),
    }
    with streaming(lambda text: ways.get(text, Pace())) as teacher, streaming(lambda text: Pace()) as student:
        timed = compare((served("teacher", teacher.url), served("student", student.url)), PROMPTS, 16, 4, 2)
    found = sheet(timed)
    assert found.teacher.errors == {"status 500": 2, "the stream broke off": 1, "an empty answer": 1}
    assert (found.student.errors, found.teacher.requests, found.paired) == ({}, 24, 20)
    page = pages(found)["payoff.md"]
    assert (
        "| requests that failed | 4 of 24 (an empty answer: 1, status 500: 2, the stream broke off: 1) | 0 of 24 |"
        in page
    )
    assert "question" not in found.model_dump_json()


def test_a_server_that_is_not_there_is_told_before_anything_is_measured() -> None:
    with streaming(lambda text: Pace()) as teacher, pytest.raises(Unavailable, match=r"student.*ConnectError"):
        compare((served("teacher", teacher.url), served("student", "http://127.0.0.1:9/v1")), PROMPTS, 16, 2, 2)


def test_an_answer_may_end_with_its_finish_reason_alone() -> None:
    with streaming(lambda text: Pace(terse=True)) as one, streaming(lambda text: Pace()) as two:
        timed = compare((served("teacher", one.url), served("student", two.url)), PROMPTS[:6], 16, 2, 2)
    found = sheet(timed)
    assert (found.paired, found.teacher.errors, found.teacher.tokens) == (4, {}, 16)


def test_a_server_that_counts_no_tokens_gets_no_cost() -> None:
    with streaming(lambda text: Pace(usage=False)) as one, streaming(lambda text: Pace()) as two:
        timed = compare((served("teacher", one.url), served("student", two.url)), PROMPTS[:6], 16, 2, 2)
    found = sheet(timed)
    assert (found.teacher.per_1k_tokens, found.teacher.tokens_per_second, found.cost_ratio) == (None, None, None)
    assert "| tokens a second | not told |" in pages(found)["payoff.md"]


def answers(seconds: list[float], errors: set[int], tokens: int = 10) -> Timed:
    return Timed(
        answers=tuple(
            Answer(prompt=n, round=n, seconds=s, error="status 500")
            if n in errors
            else Answer(prompt=n, round=n, seconds=s, first_token_s=s / 2, tokens=tokens)
            for n, s in enumerate(seconds)
        ),
        busy_s=tuple(seconds),
    )


@given(
    seconds=st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    factor=st.floats(0.1, 10),
    failed=st.tuples(st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29))),
)
def test_what_is_counted_adds_up(seconds: list[float], factor: float, failed: tuple[set[int], set[int]]) -> None:
    timed = answers(seconds, failed[0]), answers([each * factor for each in seconds], failed[1])
    found = sheet(timed)
    for side, errors in ((found.teacher, failed[0]), (found.student, failed[1])):
        assert sum(side.errors.values()) == len(errors & set(range(len(seconds))))
        if side.per_1k_tokens is not None and side.tokens is not None:
            assert side.per_1k_tokens * side.tokens / 1000 == pytest.approx(side.price * side.busy_s / 3600)
    assert found.paired == len(set(range(len(seconds))) - failed[0] - failed[1])
    for ratio in found.ratios:
        assert ratio.low == pytest.approx(factor)
        assert ratio.high == pytest.approx(factor)


def scored(values: list[float]) -> list[ItemScore]:
    return [ItemScore(item=f"i{n}", cluster=f"c{n // 2}", scores={"exact": value}) for n, value in enumerate(values)]


def test_quality_is_compared_item_by_item() -> None:
    (found,) = compare_quality(scored([1.0] * 20), scored([1.0, 0.0] * 10))
    assert (found.n, found.teacher.estimate, found.student.estimate) == (20, 1.0, 0.5)
    assert found.difference is not None
    assert found.difference.estimate == -0.5
    assert found.teacher.low == pytest.approx(0.025 ** (1 / 10), abs=0.01), "ten clusters show what ten items do"
    (few,) = compare_quality(scored([1.0] * 4), scored([0.0] * 4))
    assert few.difference is None
    with pytest.raises(BadInput, match="one side only"):
        compare_quality(scored([1.0] * 20), scored([1.0] * 19))
    with pytest.raises(BadInput, match="any common metric"):
        compare_quality(scored([1.0]), [ItemScore(item="i0", cluster="c", scores={"other": 1.0})])


def test_the_pages_are_written_whole_with_quality(tmp_path: Path) -> None:
    quality = compare_quality(scored([1.0] * 20), scored([1.0, 0.0] * 10))
    found = sheet((answers([1.0, 2.0], set()), answers([0.5, 1.0], set())), quality=quality)
    write(found, tmp_path / "sheet")
    assert Payoff.model_validate_json((tmp_path / "sheet" / "payoff.json").read_bytes()) == found
    for name in ("payoff.md", "payoff.html"):
        assert "0.500" in (tmp_path / "sheet" / name).read_text()
    assert "-0.500" in (tmp_path / "sheet" / "payoff.md").read_text()


def test_the_command_reads_prompts_and_results_and_writes_the_sheet(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a"}]} for n in range(4)
    ]
    rows += [{"text": "q4"}, {"text": "q5"}]  # type: ignore[dict-item]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, values in (("teacher", [1.0] * 20), ("student", [0.0] * 20)):
        items = [each.payload() for each in scored(values)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"items": items}))
    with streaming(lambda text: Pace()) as teacher, streaming(lambda text: Pace()) as student:
        options = {
            "--teacher": teacher.url,
            "--student": student.url,
            "--teacher-model": "big",
            "--student-model": "small",
            "--teacher-price": "2.5",
            "--student-price": "0.5",
            "--prompts": str(tmp_path / "prompts.jsonl"),
            "--out": str(tmp_path / "sheet"),
            "--teacher-results": str(tmp_path / "teacher.json"),
            "--student-results": str(tmp_path / "student.json"),
            "--warm-up": "2",
        }
        words = [word for pair in options.items() for word in pair]
        done = CliRunner().invoke(app, ["distil", "payoff", *words], catch_exceptions=False)
        assert sorted(student.texts()) == [f"q{n}" for n in range(6)]
    assert done.exit_code == 0, done.output
    made = Payoff.model_validate_json((tmp_path / "sheet" / "payoff.json").read_bytes())
    assert (made.asked, made.paired, made.quality[0].metric) == (4, 4, "exact")
    with pytest.raises(BadInput, match="6 prompts, of which 6 warm up"):
        CliRunner().invoke(app, ["distil", "payoff", *words, "--warm-up", "6"], catch_exceptions=False)
