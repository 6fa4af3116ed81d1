"""`assay judge calibrate`: its exit code says whether the judge counts, and what it measured is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from data_contracts.judging import Calibration
from pipelines import judge_cli
from pipelines.cli import app
from pipelines.settings import Settings
from pipelines.wiring import Line
from tests.support.judging import faithful_rows, oracle, paired_rows
from tests.support.teacher import Reply, teaching


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


@pytest.mark.parametrize("rows", [faithful_rows(50), paired_rows(50)], ids=["faithfulness", "preference"])
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
        done = command(server.url, faithful_rows(50), tmp_path)
    assert done.exit_code == 3
    assert "untrusted: kappa 0.000 [0.000, 0.000], min_kappa is 0.4 (policy default)" in done.output


def test_the_command_reads_other_columns_by_a_mapping_and_a_sample_of_them(line, tmp_path):
    rows = faithful_rows(60)
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
    words = ["--model", "m", "--set", str(path), "--task", "faithfulness", "--mapping", str(mapping), "--sample", "50"]
    with teaching(oracle(rows)) as server:
        done = CliRunner().invoke(app, ["judge", "calibrate", "--endpoint", server.url, *words, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["items"]) == (0, 50), done.output


@pytest.mark.parametrize(
    "more", [("--task", "no-such"), ("--policy", "no-such"), ("--mapping", "no.yaml"), ("--template", "no.jinja")]
)
def test_wrong_files_are_bad_input(line, tmp_path, more):
    done = command("http://127.0.0.1:9/v1", faithful_rows(10), tmp_path, *more)
    assert isinstance(done.exception, BadInput)
