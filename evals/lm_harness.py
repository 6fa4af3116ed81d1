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

import yaml

from data_contracts.errors import Unavailable
from evals.suite import Suite

_TIMEOUT_S = 1800


def engine() -> str:
    return f"lm-eval {version('lm_eval')}"


def item_scores(suite: Suite, url: str, name: str, tokenizer: Path) -> tuple[dict[str, dict[str, float]], bytes]:
    """Metrics by item, and lm-eval's own record of the samples. ``url`` ends in ``/v1``, ``name`` is the served model,
    ``tokenizer`` the base's folder. Raises `Unavailable` when lm-eval fails, with the end of what it printed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "task.yaml").write_text(yaml.safe_dump(_task(suite)))
        (folder / "run.yaml").write_text(yaml.safe_dump(_run(suite, url, name, tokenizer, folder)))
        done = subprocess.run(
            [sys.executable, "-m", "lm_eval", "run", "--config", str(folder / "run.yaml")],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
        if done.returncode != 0:
            raise Unavailable(f"lm-eval failed on suite {suite.name}: ...{done.stderr.strip()[-600:]}")
        record = next((folder / "out").rglob("samples_*.jsonl")).read_bytes()
    samples = [json.loads(line) for line in record.splitlines()]
    return {
        sample["doc"]["id"]: {metric: float(sample[metric]) for metric in suite.metrics} for sample in samples
    }, record


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
