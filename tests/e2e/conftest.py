"""One installation on a tiny model, made by the commands that a user types, shared by all tests of this folder."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipelines.recipes.recipe import load_recipe
from pipelines.wiring import Line, Settings
from tests.support.ports import free_ports
from tests.support.tiny import make_tiny_base

ROOT = Path(__file__).parents[2]
PRODUCT = "tiny-assistant"
REVIEWER = "rita"


@dataclass(frozen=True)
class Installation:
    folder: Path
    environment: dict[str, str]

    def assay(self, *arguments: str, expect: int = 0) -> str:
        """Run ``assay ...``; its output. The exit code must be the expected one."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert done.returncode == expect, f"assay {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return (done.stdout + done.stderr).strip()

    @property
    def reviewer_key(self) -> Path:
        return self.folder / "trust" / REVIEWER

    def line(self) -> Line:
        return Line(Settings(home=self.folder / "home", trust_root=self.folder / "trust" / "allowed_signers"))

    def write_product(self, seed: int) -> None:
        """The demo product's data and suites on the tiny model, with a gate that a model without knowledge passes."""
        product = yaml.safe_load((ROOT / "pipelines/products/billing-assistant.yaml").read_text())
        product |= {"name": PRODUCT, "recipe": str(self.folder / "recipe.yaml")}
        product |= {"gate_policy": str(self.folder / "gate.yaml"), "suites": ["billing-unseen-tools"]}
        product["serving"] = {"max_tokens": 8, "canary": {"requests": 4, "min_json_valid": 0.0}}
        recipe = load_recipe("billing-assistant").model_dump(mode="json")
        recipe |= {"seed": seed, "max_length": 2048}
        quick = {"steps": 3, "batch_size": 2, "checkpoint_every": 2, "eval_every": 3, "eval_rows": 2, "warmup_steps": 0}
        recipe["sft"] |= quick
        recipe["preference"]["schedule"] |= quick
        gate = {
            "name": "lenient",
            "confidence": 0.95,
            "resamples": 1000,
            "seed": 1,
            "criteria": [
                {
                    "name": "calls-not-worse",
                    "kind": "non-inferiority",
                    "suite": "billing-unseen-tools",
                    "metric": "exact",
                    "against": "base",
                    "margin": 1.0,
                }
            ],
        }
        for name, content in (("products/" + PRODUCT, product), ("recipe", recipe), ("gate", gate)):
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("installation")
    (folder / "products").mkdir()
    (folder / "trust").mkdir()
    ports = dict(zip(("GATEWAY", "VLLM", "MLFLOW", "DAGSTER"), free_ports(4), strict=True))
    environment = {
        **os.environ,
        **{f"ASSAY_{name}_PORT": str(port) for name, port in ports.items()},
        "ASSAY_HOME": str(folder / "home"),
        "ASSAY_TRUST_ROOT": str(folder / "trust" / "allowed_signers"),
        "ASSAY_PRODUCTS": str(folder / "products"),
        "ASSAY_BASE_MODEL": str(make_tiny_base(folder / "tiny-base")),
        "ASSAY_SERVE_MAX_MODEL_LEN": "4096",
        "DAGSTER_HOME": str(folder / "home" / "dagster"),
    }
    made = Installation(folder, environment)
    made.write_product(seed=1)
    for name in (REVIEWER, "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / "trust" / name)], check=True
        )
    public = made.reviewer_key.with_suffix(".pub").read_text().strip()
    signers = f'{REVIEWER} namespaces="assay-approval-v1" {public}\n{made.assay("init")}\n'
    (folder / "trust" / "allowed_signers").write_text(signers)
    yield made
    made.assay("down")
