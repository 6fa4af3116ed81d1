"""Drift -> decision -> data -> training -> evaluation -> approval -> canary -> champion, as `make loop` shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.settings import Settings
from pipelines.wiring import Line
from tests.support.installation import settings_in

ROOT = Path(__file__).parents[2]


@pytest.mark.drill
@pytest.mark.timeout(7200)
def test_changed_traffic_ends_in_a_champion_that_knows_it_with_one_signature(tmp_path: Path) -> None:
    """`make demo` comes first, on the real model: an hour and a half of two cores together."""
    found = settings_in(tmp_path)
    environment = os.environ | {f"ASSAY_{name.upper()}": value for name, value in found.items()}

    def run(module: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", module], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    (tmp_path / "trust").mkdir()
    run("pipelines.demo")
    line = Line(Settings.model_validate(found))
    begun = len(line.log.records())
    said = run("pipelines.loop")
    records = line.log.records()[begun:]
    events = [record.event for record in records]
    steps = ["retrain.decided", "release.registered", "approval.accepted", "canary.recorded", "promotion.recorded"]
    assert set(steps) <= set(events), said
    assert sorted(steps[1:], key=events.index) == steps[1:], said
    decisions = [record.body["decision"] for record in records if record.event == "retrain.decided"]
    assert decisions[0] == "wait"
    assert "retrain" in decisions
    people = {record.actor for record in records if record.event == "approval.accepted"}
    assert events.count("approval.accepted") == 1, people
    promoted = next(record for record in records if record.event == "promotion.recorded")
    assert promoted.body["displaced"], "there was a champion before"
