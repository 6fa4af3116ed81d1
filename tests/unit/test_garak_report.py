"""The scanner's report becomes rows of scores, or one line that says why not."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from evals.garak_report import read_report
from pipelines.cli import app
from pipelines.recipes.product import ROOT

REAL = ROOT / "tests" / "support" / "garak-0.17.1.report.jsonl"
"""What garak 0.17.1 wrote of a probe of three prompts, two answers each, less every text."""


def attempt(probe: str, seq: int, status: int = 2, **results: list[float | None]) -> dict[str, Any]:
    return {
        "entry_type": "attempt",
        "status": status,
        "probe_classname": probe,
        "seq": seq,
        "detector_results": results,
    }


DONE = {"entry_type": "completion"}
ROWS = [
    {"entry_type": "start_run setup", "run.seed": 7},
    {"entry_type": "init", "garak_version": "0.17.1"},
    attempt("dan.A", 0, status=1),
    attempt("dan.A", 0, DAN=[1.0, 0.0], Bypass=[0.0, 0.4]),
    attempt("dan.A", 1, DAN=[0.0, 0.0], Bypass=[0.0, 0.0]),
    attempt("tag.B", 0, Trigger=[None, 0.5]),
    DONE,
]


def scanned(folder: Path, rows: list[dict[str, Any]]) -> tuple[Any, Path]:
    report, out = folder / "x.report.jsonl", folder / "scores.jsonl"
    report.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return CliRunner().invoke(app, ["scan", "--report", str(report), "--out", str(out), "--json"]), out


def test_each_prompt_is_scored_by_the_share_of_answers_that_withstood_it(tmp_path: Path) -> None:
    done, out = scanned(tmp_path, ROWS)
    assert json.loads(done.output) == {"items": 5, "withstood": {"dan.A": 0.875, "tag.B": 0.0}}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["suite"] for row in rows} == {"garak-0.17.1"}
    assert len({row["item"] for row in rows}) == 5
    assert [(row["cluster"], row["score"]) for row in rows] == [
        *[("dan.A", 1.0), ("dan.A", 0.5), ("dan.A", 1.0), ("dan.A", 1.0)],
        ("tag.B", 0.0),
    ]


def test_of_a_report_that_garak_wrote_the_counts_are_garaks_own() -> None:
    found = read_report(REAL)
    assert [(each.suite, each.cluster) for each in found] == [("garak-0.17.1", "dan.AutoDANCached")] * 6
    rows = [json.loads(line) for line in REAL.read_text().splitlines()]
    told = {row["detector"]: row["passed"] / row["total_evaluated"] for row in rows if row["entry_type"] == "eval"}
    for detector, share in told.items():
        scores = [each.score for each in found if f"/{detector}/" in each.item]
        assert len(scores) == 3
        assert sum(scores) / 3 == pytest.approx(share)
    assert len(told) == 2


def test_the_same_prompts_have_the_same_names_in_another_run(tmp_path: Path) -> None:
    _, out = scanned(tmp_path, ROWS)
    names = {json.loads(line)["item"] for line in out.read_text().splitlines()}
    _, out = scanned(tmp_path, [*ROWS, attempt("new.C", 0, X=[0.0])])
    assert names < {json.loads(line)["item"] for line in out.read_text().splitlines()}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (ROWS[:-1], "garak did not finish this run"),
        ([ROWS[0], DONE], "judged no answer"),
        (ROWS[1:], "garak ran without a seed.*give it --seed 7"),
        ([{"entry_type": "attempt", "status": 2}, DONE], r"line 1: is no row of a garak report .*run garak again"),
        ([{"colour": "red"}], "line 1"),
    ],
)
def test_a_report_that_cannot_be_used_is_refused_and_nothing_written(
    tmp_path: Path, rows: list[dict[str, Any]], said: str
) -> None:
    done, out = scanned(tmp_path, rows)
    assert isinstance(done.exception, BadInput)
    with pytest.raises(BadInput, match=said):
        raise done.exception
    assert not out.exists()
