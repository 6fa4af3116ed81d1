"""Run one of lm-eval's tasks as its own process, offline, against a served model; keep the score of every item.

Choices are compared by likelihood through the completions route, on the bare text: no chat template, no tools.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import JsonValue

from data_contracts.errors import Unavailable
from evals.suite import Suite


def engine() -> str:
    return f"lm-eval {version('lm_eval')}"


class Probed(NamedTuple):
    """Metrics by item, and what each choice was given: its log-likelihood, and whether it is the greedy text."""

    scores: dict[str, dict[str, float]]
    likelihoods: dict[str, JsonValue]


def probe(suite: Suite, url: str, name: str, tokenizer: Path) -> Probed:
    """Score every item. ``url`` ends in ``/v1``, ``name`` is the served model, ``tokenizer`` the base's folder.

    Raises `Unavailable` when lm-eval fails, with the end of what it printed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "task.yaml").write_text(yaml.safe_dump(_task(suite)))
        (folder / "run.yaml").write_text(yaml.safe_dump(_run(suite, url, name, tokenizer, folder)))
        done = subprocess.run(
            [sys.executable, "-m", "lm_eval", "run", "--config", str(folder / "run.yaml")],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise Unavailable(f"lm-eval failed on suite {suite.name}: ...{done.stderr.strip()[-600:]}")
        lines = next((folder / "out").rglob("samples_*.jsonl")).read_text(encoding="utf-8")
    samples = {sample["doc"]["id"]: sample for sample in map(json.loads, lines.removesuffix("\n").split("\n"))}
    return Probed(
        {item: {metric: float(sample[metric]) for metric in suite.metrics} for item, sample in samples.items()},
        {item: sample["filtered_resps"] for item, sample in samples.items()},
    )


def _task(suite: Suite) -> dict[str, object]:
    return {
        **(suite.lm_eval or {}),
        "task": suite.name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(suite.data_path())}},
        "test_split": "test",
    }


def _run(suite: Suite, url: str, name: str, tokenizer: Path, folder: Path) -> dict[str, object]:
    return {
        "model": "local-completions",
        "model_args": {
            "model": name,
            "base_url": f"{url}/completions",
            "tokenizer": str(tokenizer),
            "tokenizer_backend": "huggingface",
            "num_concurrent": 2,
        },
        "tasks": [suite.name],
        "include_path": str(folder),
        "batch_size": 16,
        "log_samples": True,
        "output_path": str(folder / "out"),
    }
