"""`assay runs` and `assay plan`: what they list and find, what they settle, and what they refuse."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from filelock import FileLock
from typer.testing import CliRunner

from data_contracts.digests import hex_of, sha256_bytes
from pipelines import runs_cli
from pipelines.cli import app
from pipelines.settings import Settings
from pipelines.stages.train import plan as planning
from pipelines.stages.train.hardware import Machine
from pipelines.stages.train.run_record import lock_of
from pipelines.wiring import Line
from tests.support.runs import STARTED, make_record
from tests.support.tiny import make_tiny_base
from tests.support.training import make_recipe


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    base = str(make_tiny_base(tmp_path / "tiny"))
    made = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust", base_model=base, hour_cost=2.0))
    monkeypatch.setattr(runs_cli, "Line", lambda: made)
    return made


def assay(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def listed(*words: str) -> list[str]:
    return [run["run"] for run in json.loads(assay("runs", *words, "--json").output)]


def test_runs_are_found_by_outcome_product_time_and_words(line: Line) -> None:
    line.runs.put(make_record("d0ne"))
    tripped = "step 7: the loss is nan; lower the learning rate or look at the rows"
    line.runs.put(
        make_record(
            "fa11", outcome="failed", error="GuardTripped", reason=tripped, started=STARTED + timedelta(days=1), step=7
        )
    )
    line.runs.put(make_record("k111", outcome="killed", product="other", started=STARTED + timedelta(days=2)))
    assert listed() == ["k111", "fa11", "d0ne"]
    assert listed("--failed") == ["k111", "fa11"]
    assert listed("--product", "other") == ["k111"]
    assert listed("--since", "2026-03-02") == ["k111", "fa11"]
    assert listed("--contains", "guardtripped") == ["fa11"]
    assert listed("--contains", "rank 16", "--product", "test-product") == ["fa11", "d0ne"]
    assert listed("--failed", "--contains", "no such words") == []
    shown = assay("runs", "--failed").output
    assert "GuardTripped: step 7: the loss is nan" in shown
    assert "step 7/6" in shown
    assert "no such run" in assay("runs", "--contains", "nothing says so").output


def test_one_run_is_shown_whole_by_the_beginning_of_its_name(line: Line) -> None:
    line.runs.put(make_record("ab12", outcome="failed", reason="out of memory", log_tail="step 1\nstep 2\n"))
    line.runs.put(make_record("ab99"))
    shown = assay("runs", "show", "ab1").output
    for said in ("out of memory", "'rank': 16", "step 1\nstep 2"):
        assert said in shown
    assert json.loads(assay("runs", "show", "ab12", "--json").output)["reason"] == "out of memory"
    assert "2 runs" in str(assay("runs", "show", "ab").exception)
    assert "no run x" in str(assay("runs", "show", "x").exception)


def test_a_run_that_was_killed_with_its_caller_is_recognised_when_its_locks_are_free(line: Line) -> None:
    key = sha256_bytes(b"work")
    record = make_record("ab12", outcome="running")
    folder = line.home / "training" / hex_of(key)
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("sft step 3/6  loss 0.5\n")
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5, "tokens": 90, "begun_at": 1}\n{"step": 4, "lo')
    (folder / "environment.json").write_text(json.dumps({"device": "cpu", "devices": "0"}))
    line.runs.put(record)
    with line.locks.hold(lock_of(key)):
        assert listed("--failed") == []
    with FileLock(folder / "lock"):
        assert listed("--failed") == []
    assert listed("--failed") == ["ab12"]
    (killed,) = line.runs.get("ab12")
    assert killed.outcome == "killed"
    assert (killed.step, killed.rows, killed.tokens, killed.metrics) == (3, 4, 90, {"loss": 0.5})
    assert killed.log_tail == "sft step 3/6  loss 0.5\n"
    assert killed.cost == pytest.approx(killed.seconds / 3600 * 2.0)
    assert killed.ended is not None
    assert killed.ended > killed.started


def test_guards_that_tripped_are_told_as_the_trainer_noted_them(line: Line) -> None:
    key = sha256_bytes(b"work")
    folder = line.home / "training" / hex_of(key)
    folder.mkdir(parents=True)
    trip = {"step": 5, "guard": "loss_spike", "action": "skip", "reason": "step 5: the loss 9 is a spike"}
    failed = {"error": "GuardTripped", "reason": "step 8: the loss is nan", "guard": "nan", "step": 8, "trips": [trip]}
    (folder / "failed.json").write_text(json.dumps(failed))
    line.runs.put(make_record("ab12", outcome="running"))
    assert listed("--contains", "loss_spike") == ["ab12"]
    (record,) = line.runs.get("ab12")
    assert (record.outcome, record.guard, record.step, record.trips) == ("failed", "nan", 8, (trip,))


def _recipe(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(make_recipe(**changes).model_dump_json())))
    return path


def test_a_plan_tells_parameters_memory_steps_and_what_past_runs_took(line: Line, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path)
    first = assay("plan", "billing-assistant", "--recipe", str(recipe))
    assert first.exit_code == 0, first.output
    assert "no run of like shape" in first.output
    assert "6 steps, 12 rows, at most 6,144 tokens" in first.output

    from pipelines.stages.train import steps

    base, _ = steps.base(line, line.product("billing-assistant"), line.settings.base_model)
    alike = make_recipe().payload()
    for number, seconds in enumerate((30.0, 60.0, 120.0)):
        took = {"seconds": seconds, "rows": 12, "base": base.digest, "hyperparameters": alike}
        line.runs.put(make_record(f"a{number}", environment={"device": "cpu"}, **took))
    line.runs.put(
        make_record("b", rows=12, seconds=9999.0, base=base.digest, hyperparameters=alike | {"method": "full"})
    )
    told = json.loads(assay("plan", "billing-assistant", "--recipe", str(recipe), "--json").output)
    sft, preference = told["stages"]
    assert (sft["past_runs"], sft["seconds"], sft["cost"]) == (3, pytest.approx(60.0), pytest.approx(60 / 3600 * 2.0))
    assert (preference["past_runs"], preference["seconds"]) == (0, None)
    assert preference["tokens"] == 2 * sft["tokens"]
    assert sft["trainable"] == 2 * 4 * (64 + 64 + 64 + 64 + 128 + 64)


def test_a_plan_refuses_what_cannot_fit_and_names_the_remedy(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "this_machine", lambda: Machine(kind="cpu", total=8 * 10**9, free=10**9))
    recipe = _recipe(tmp_path, max_length=8000, sft={"batch_size": 10_000})
    refused = assay("plan", "billing-assistant", "--recipe", str(recipe), "--json")
    assert refused.exit_code == 3
    assert "Lower batch_size" in refused.stderr
    assert "has 8.0 GB" in json.loads(refused.stdout)["refused"]
