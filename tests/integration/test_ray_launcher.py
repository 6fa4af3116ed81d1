"""The trainer on a Ray cluster of this machine: its log and reason come back, and a lost worker costs some steps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.recipes.product import ROOT
from pipelines.stages.train.job import RunFiles
from tests.support.tiny import make_tiny_base
from tests.support.trainer import finish
from tests.support.training import make_job, make_recipe

PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
import psutil, ray
from data_contracts.errors import Refused
from resources.ray_cluster import connect
from resources.trainer_launcher import open_launcher

def children(job):
    command = ["-m", "pipelines.stages.train.entry", job]
    return [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[1:] == command]

def when_trained(job, act):
    def wait():
        metrics = Path(job).parent / "metrics.jsonl"
        while not (metrics.exists() and '"step": 5, "loss"' in metrics.read_text()):
            time.sleep(0.05)
        act(children(job)[0])
    threading.Thread(target=wait, daemon=True).start()

os.environ |= {"OMP_NUM_THREADS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
connect(2, "")
launcher = open_launcher("ray", "", {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""})
good, bad, lost, cancelled = sys.argv[1:]
launcher.launch(Path(good), Path(good).parent)
try:
    launcher.launch(Path(bad), Path(bad).parent)
except Refused as refused:
    print("refused:", refused)
when_trained(lost, lambda trainer: trainer.parent().kill())
launcher.launch(Path(lost), Path(lost).parent)
when_trained(cancelled, lambda trainer: os.kill(os.getpid(), signal.SIGINT))
try:
    launcher.launch(Path(cancelled), Path(cancelled).parent)
except KeyboardInterrupt:
    psutil.wait_procs(children(cancelled), timeout=30)
    print("cancelled, left:", children(cancelled))
"""


@pytest.mark.drill
def test_what_is_trained_on_ray_and_what_becomes_of_a_lost_or_cancelled_one(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "tiny")
    recipe = make_recipe(sft={"steps": 40, "eval_every": 40, "checkpoint_every": 3})
    jobs = {name: make_job(tmp_path / name, base, recipe) for name in ("good", "bad", "lost", "cancelled")}
    make_job(tmp_path / "bad", base, make_recipe(max_length=16))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, jobs.values())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "sft step 40/40  validation loss" in done.stdout
    assert "refused: training ended with code 1" in done.stdout
    assert "max_length" in done.stdout
    assert "Ray lost the trainer" in done.stdout
    assert "resuming from step-" in done.stdout
    losses = [
        json.loads(RunFiles(tmp_path / name).result.read_bytes())["curve"][-1]["loss"] for name in ("good", "lost")
    ]
    assert losses[0] == losses[1]
    assert "cancelled, left: []" in done.stdout
    assert not RunFiles(tmp_path / "cancelled").result.exists()
    finish(jobs["cancelled"])
    assert "resuming from step-" in (tmp_path / "cancelled" / "trainer.log").read_text()
