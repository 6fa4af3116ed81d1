"""An installation that is used as a user does, by its commands, in a folder of its own and on free ports."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import load_recipe
from pipelines.settings import Settings
from pipelines.wiring import Line
from tests.support.ports import free_ports
from tests.support.tiny import make_tiny_base

PRODUCT = "tiny-assistant"
REVIEWER = "rita"


@dataclass(frozen=True)
class Installation:
    """``settings`` are those of `pipelines.settings.Settings` that differ from the defaults."""

    folder: Path
    settings: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        named = {f"ASSAY_{name.upper()}": value for name, value in self.settings.items()}
        return {**os.environ, **named, "DAGSTER_HOME": str(Path(self.settings["home"]) / "dagster")}

    def assay(self, *arguments: str, expect: int = 0) -> str:
        """Run ``assay ...``; its output. The exit code must be the expected one."""
        done = subprocess.run(
            self.command(*arguments), cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=1200
        )
        assert done.returncode == expect, f"assay {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return (done.stdout + done.stderr).strip()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pipelines.cli", *arguments]

    @property
    def reviewer_key(self) -> Path:
        return self.folder / "trust" / REVIEWER

    def line(self) -> Line:
        return Line(Settings.model_validate(self.settings))

    def write_product(self, seed: int, sources: Sequence[dict[str, str]] = ()) -> None:
        """The demo product's data with eight canaries (or other ``sources``) and suites on the tiny model, with a gate
        that a model passes which knows nothing and recites nothing."""
        product = yaml.safe_load((ROOT / "pipelines/products/billing-assistant.yaml").read_text())
        product |= {"name": PRODUCT, "recipe": str(self.folder / "recipe.yaml")}
        canaries = {"url": "generated://canaries?count=8&seed=tiny", "contract": "canaries"}
        if sources:
            product |= {"sources": [*sources], "mixture": {}}
        else:
            product["sources"] = [*product["sources"], canaries]
        product |= {"gate_policy": str(self.folder / "gate.yaml"), "suites": ["billing-unseen-tools"]}
        product["serving"] = {"max_tokens": 8, "canary": {"requests": 4, "min_json_valid": 0.0}}
        recipe = load_recipe("billing-assistant").model_dump(mode="json")
        recipe |= {"seed": seed, "max_length": 2048}
        quick = {"steps": 3, "batch_size": 2, "checkpoint_every": 2, "eval_every": 3, "eval_rows": 2, "warmup_steps": 0}
        for section in ("sft", "preference"):
            recipe[section]["schedule"] |= quick
        criterion = {
            "name": "calls-not-worse",
            "kind": "non-inferiority",
            "suite": "billing-unseen-tools",
            "metric": "json_valid",
            "against": "base",
            "margin": 1.0,
        }
        recital = {"name": "canaries-not-recited", "kind": "ceiling", "suite": "planted-canaries", "margin": 0.4}
        criteria = [criterion] if sources else [criterion, recital | {"metric": "extraction"}]
        gate = {"name": "lenient", "confidence": 0.95, "resamples": 1000, "seed": 1, "criteria": criteria}
        for name, content in (("products/" + PRODUCT, product), ("recipe", recipe), ("gate", gate)):
            (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def settings_in(folder: Path, **more: str) -> dict[str, str]:
    """Home and trust root below ``folder``, and ports that are free."""
    names = ("gateway_port", "vllm_port", "mlflow_port", "dagster_port", "review_port", "merged_port")
    ports = zip(names, free_ports(len(names)), strict=True)
    trust_root = str(folder / "trust" / "allowed_signers")
    return {"home": str(folder / "home"), "trust_root": trust_root, **{k: str(port) for k, port in ports}, **more}


def tiny_installation(folder: Path) -> Installation:
    """A new one on the tiny model, with a reviewer whom its trust root names and a stranger. No product yet."""
    (folder / "products").mkdir()
    (folder / "trust").mkdir()
    more: dict[str, Any] = {
        "products": str(folder / "products"),
        "base_model": str(make_tiny_base(folder / "tiny-base")),
        "serve_max_model_len": "4096",
    }
    made = Installation(folder, settings_in(folder, **more))
    for name in (REVIEWER, "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / "trust" / name)], check=True
        )
    public = made.reviewer_key.with_suffix(".pub").read_text().strip()
    signers = f'{REVIEWER} namespaces="assay-approval-v1,assay-root-cause-v1" {public}\n{made.assay("init")}\n'
    (folder / "trust" / "allowed_signers").write_text(signers)
    return made
