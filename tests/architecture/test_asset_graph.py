"""The graph reads like the lifecycle: a snapshot, so that a change of it is a change that somebody saw."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg

from pipelines.definitions import definitions
from pipelines.recipes.product import ROOT

SNAPSHOT = Path(__file__).with_name("asset_graph.json")


def drawn() -> dict[str, list[str]]:
    """Asset -> what it is made from, in the order of the line."""
    graph = definitions().resolve_asset_graph()
    return {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.toposorted_asset_keys
    }


def test_the_graph_is_the_one_in_the_snapshot() -> None:
    """After a change that is meant: ``python -m tests.architecture.test_asset_graph`` writes the new one."""
    assert drawn() == json.loads(SNAPSHOT.read_text())


def test_every_asset_says_what_it_is() -> None:
    graph = definitions().resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.kinds, key
        assert node.group_name == key.path[0], key
        assert node.partitions_def is not None, key


def test_all_sensors_and_schedules_run_by_default() -> None:
    loaded = definitions()
    assert {s.name for s in loaded.sensors or () if s.default_status == dg.DefaultSensorStatus.RUNNING} == {
        "approvals",
        "erasures",
        "failures",
        "notices",
        "reconciliation",
        "retraining",
    }
    assert [s.default_status for s in loaded.schedules or ()] == [dg.DefaultScheduleStatus.RUNNING] * 2


def test_dagsters_own_check_is_clean(tmp_path: Path) -> None:
    dg_command = Path(sys.executable).with_name("dg")
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "DAGSTER_DISABLE_TELEMETRY": "1"}
    environment["PATH"] = f"{dg_command.parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run([dg_command, "check", "defs"], cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "loaded successfully" in done.stdout + done.stderr


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(drawn(), indent=2) + "\n")
