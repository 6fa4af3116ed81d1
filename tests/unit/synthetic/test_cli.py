"""`assay data synthesize`: from a plan file and a server to a file of rows, also when it is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from data_contracts.errors import BadInput, Refused
from pipelines.cli import app
from pipelines.recipes.product import ROOT
from pipelines.stages.data.synthesize import synthesize
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from pipelines.stages.data.synthetic.arithmetic import wrong_sums
from pipelines.stages.data.synthetic.plan import load_plan, load_seeds
from pipelines.stages.data.synthetic.sandbox import SANDBOXES, execute
from tests.support.teacher import DETECTOR, TEACHER, FakeEndpoint, Reply, obedient, plan_of, teaching, written


def command(folder: Path, url: str, *more: str) -> list[str]:
    files = ["--plan", str(folder / "plan.yaml"), "--out", str(folder / "rows.jsonl")]
    return ["data", "synthesize", *files, "--endpoint", url, "--report", str(folder / "report.json"), *more]


def write_plan(folder: Path, **changes: object) -> None:
    (folder / "plan.yaml").write_text(yaml.safe_dump(json.loads(plan_of(**changes).model_dump_json()), sort_keys=False))


def run(folder: Path, url: str, *more: str) -> Result:
    return CliRunner().invoke(app, command(folder, url, *more))


def test_rows_and_report_are_written_and_progress_goes_to_stderr(tmp_path: Path) -> None:
    write_plan(tmp_path)
    with teaching(obedient) as server:
        done = run(tmp_path, server.url, "--model", "served")
        assert done.exit_code == 0, done.output
        assert server.keys == {"Bearer none"}
    assert "12 rows in, 12 out, 0 dropped" in done.stdout
    assert "12 of 12 requests answered" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["in"], report["out"], report["yields"]) == (12, 12, {"row": 12})
    assert len(rows) == 12
    assert {row["teacher"] for row in rows} == {TEACHER}


def test_where_no_row_passes_there_is_a_report_and_no_file(tmp_path: Path) -> None:
    write_plan(tmp_path)
    with teaching(lambda body, before: Reply("I would rather not.")) as server:
        done = run(tmp_path, server.url)
    assert isinstance(done.exception, Refused)
    assert "no row of plan test passed" in str(done.exception)
    assert json.loads((tmp_path / "report.json").read_text())["yields"] == {"row": 0, "not-json": 12}
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_key_is_taken_from_the_variable_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plan(tmp_path)
    with teaching(obedient) as server:
        done = run(tmp_path, server.url, "--api-key-env", "TEACHER_KEY")
        assert isinstance(done.exception, BadInput)
        assert "TEACHER_KEY: the environment variable is not set" in str(done.exception)
        monkeypatch.setenv("TEACHER_KEY", "for-the-teacher")
        assert run(tmp_path, server.url, "--api-key-env", "TEACHER_KEY").exit_code == 0
        assert server.keys == {"Bearer for-the-teacher"}
    assert "for-the-teacher" not in "".join(each.read_text() for each in tmp_path.iterdir())


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    write_plan(tmp_path, per_stratum=30)
    kept = tmp_path / "rows.jsonl.answers"
    with teaching(lambda body, before: Reply(written(body), delay=0.15)) as server:
        program = [sys.executable, "-m", "pipelines.cli", *command(tmp_path, server.url)]
        with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            while not kept.exists() or kept.read_bytes().count(b"\n") < 20:
                assert process.poll() is None
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
        before = {json.loads(line)["request"] for line in kept.read_text().splitlines()}
        assert 20 <= len(before) < 60
        assert not (tmp_path / "rows.jsonl").exists()
        assert run(tmp_path, server.url).exit_code == 0
        assert {server.seen[request] for request in before} == {1}
        assert len(server.seen) == 60

    with AnswerFile(tmp_path / "other.answers") as answers:
        never_killed = synthesize(plan_of(per_stratum=30), TEACHER, FakeEndpoint(written), DETECTOR, answers)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == never_killed.rows
    assert json.loads((tmp_path / "report.json").read_text()) == never_killed.payload()


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines/synthesis").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_seeds_of_a_shipped_plan_pass_its_own_checks(path: Path) -> None:
    plan = load_plan(path)
    for intent in plan.intents:
        for seed in load_seeds(plan)[intent.name]:
            answer = json.loads(seed.answer)
            assert DETECTOR.language(seed.question) in {*plan.languages, None}
            if intent.tool:
                assert plan.sandbox is None or not execute(SANDBOXES[plan.sandbox], intent.tool, answer["arguments"])
                assert all(value in seed.question for value in answer["arguments"].values())
            else:
                assert wrong_sums(answer["reply"]) == 0
