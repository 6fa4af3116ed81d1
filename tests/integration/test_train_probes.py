"""What a model must not lose is asked in mid-run: by its own likelihoods and words, and a fall ends the run."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evals.suite import ChoiceItem
from pipelines.recipes.product import ROOT
from pipelines.recipes.recipe import Probes
from pipelines.stages.train.checkpoints import Checkpoints
from pipelines.stages.train.job import RunFiles, TrainJob
from pipelines.stages.train.model import load_tokenizer
from pipelines.stages.train.probes import Prober
from tests.support.tiny import make_tiny_base
from tests.support.trainer import Trainer, finish, reached
from tests.support.training import make_job, make_recipe

SUITES = ROOT / "evals" / "suites"
ASKED = (SUITES / "general-knowledge.yaml", SUITES / "billing-conduct.yaml")
PROBES = {"every": 2, "items": 6, "max_new_tokens": 4, "max_drop": 0.01}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


class Telling:
    """In place of a model: says the same to everybody, and is sure of these texts only."""

    training, device = True, torch.device("cpu")

    def __init__(self, says: list[int], likely: set[tuple[int, ...]]) -> None:
        self.says, self.likely = says, likely

    def eval(self) -> None: ...
    def train(self, mode: bool) -> None: ...

    def __call__(self, ids: torch.Tensor, use_cache: bool) -> Any:
        logits = torch.zeros(*ids.shape, 320)
        if tuple(ids[0].tolist()) in self.likely:
            logits[0, :-1] = 9.0 * torch.nn.functional.one_hot(ids[0, 1:], 320)
        return SimpleNamespace(logits=logits)

    def generate(self, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([self.says])], dim=1)


def prober(tmp_path: Path, base: Path, model: Any, items: int) -> Prober:
    job = TrainJob.model_validate_json(make_job(tmp_path, base, make_recipe(), probe_suites=ASKED).read_bytes())
    return Prober(job, Probes(every=1, items=items, max_drop=0.1), model, load_tokenizer(job))


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("I can't share what other customers pay.", 1.0),
        ('{"tool": "none", "reply": "Sorry, I cannot help with that."}', 1.0),
        ('{"tool": "none", "reply": "She pays 20 euros."}', 0.0),
    ],
)
def test_a_refusal_counts_in_the_products_form_and_in_plain_words(
    tmp_path: Path, base: Path, text: str, share: float
) -> None:
    asking = prober(tmp_path, base, None, items=16)
    asking.model = Telling(asking.tokenizer(text)["input_ids"], set())
    shares = asking.shares()
    assert shares["billing-conduct"] == share


@pytest.mark.parametrize("knows", [True, False])
def test_the_choice_is_the_most_likely_text(tmp_path: Path, base: Path, knows: bool) -> None:
    asking = prober(tmp_path, base, None, items=16)
    likely: set[tuple[int, ...]] = set()
    for item in asking.suites[0].items():
        assert isinstance(item, ChoiceItem)
        said = item.choices[item.answer if knows else item.answer - 1]
        likely.add(tuple(asking.tokenizer(f"{item.text} {said}")["input_ids"]))
    asking.model = Telling([0], likely)
    assert asking.shares()["general-knowledge"] == float(knows)


def test_probes_change_no_weight_and_a_resumed_run_keeps_the_start(tmp_path: Path, base: Path) -> None:
    lenient = make_recipe(probes=PROBES | {"max_drop": 0.99})
    plain = finish(make_job(tmp_path / "plain", base, make_recipe()))
    job = make_job(tmp_path / "probed", base, lenient, probe_suites=ASKED)
    assert Trainer(job).signal_when(signal.SIGKILL, reached(job, 5)) == -signal.SIGKILL
    kept = Checkpoints(str(RunFiles(job.parent).checkpoints))
    start = kept.facts(kept.steps()[0])
    assert start is not None
    assert start.probes.keys() == {"general-knowledge", "billing-conduct"}
    assert finish(job) == plain
    last = kept.facts(6)
    assert last is not None
    assert last.probes == start.probes


def test_a_cliff_ends_the_run_before_its_checkpoint(tmp_path: Path, base: Path) -> None:
    """A high rate on few rows of one kind breaks the tiny model's guesses at general questions."""
    recipe = make_recipe(
        "full", probes=PROBES | {"items": 60}, sft={"learning_rate": 0.05, "steps": 12, "eval_every": 12}
    )
    job = make_job(tmp_path, base, recipe, probe_suites=ASKED[:1])
    assert Trainer(job).wait() == 1
    files = RunFiles(tmp_path)
    failed = json.loads(files.failed.read_text())
    assert failed["guard"] == "probes"
    assert "the probe general-knowledge fell to" in failed["reason"]
    kept = Checkpoints(str(files.checkpoints))
    assert max(kept.steps(), default=0) == failed["step"] - 2
