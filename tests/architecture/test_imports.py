"""The house's rules about imports: one direction, nothing heavy in the code location, our names are ours."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.recipes.product import ROOT

HEAVY = {"torch", "transformers", "trl", "peft", "mlflow", "presidio_analyzer", "spacy", "lm_eval", "vllm", "ragas"}
HEAVY |= {"matplotlib", "numpy", "scipy", "pandas", "pyarrow", "datasets", "ray"}
LOADED = "import sys; from pipelines.definitions import definitions; definitions(); print(*sys.modules)"


def test_imports_go_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout


def test_the_code_location_loads_nothing_heavy_and_without_warnings() -> None:
    command = [sys.executable, "-W", "error", "-c", LOADED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert not HEAVY & {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("name", ["assets", "data_contracts", "evals", "pipelines", "resources"])
def test_a_top_level_name_is_this_repos(name: str) -> None:
    assert Path(str(importlib.import_module(name).__file__)) == ROOT / name / "__init__.py"
