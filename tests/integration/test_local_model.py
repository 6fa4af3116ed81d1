"""A folder, and an adapter on it, through transformers: the same numbers as lm-eval's own, and nothing asked twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from data_contracts.digests import sha256_bytes
from data_contracts.errors import AssayError, BadInput, Refused
from evals.decoding import Decoding
from evals.kept import Respondent
from evals.run import Way, evaluate
from evals.suite import Suite, load_suite
from pipelines.cli import app
from pipelines.recipes.product import ROOT
from pipelines.settings import Settings
from pipelines.wiring import Line
from resources.local_model import LocalModel, _Draws, folder_digest
from tests.support.adapters import write_adapter
from tests.support.tiny import make_tiny_base

pytestmark = pytest.mark.filterwarnings("ignore")  # of lm-eval, peft and ragas about parts of others

COMMON = {"description": "d", "unit": "u", "cluster": "c", "direction": "higher-is-better", "licence": "CC0-1.0"}
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": " ",
    "metric_list": [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
    ],
}
GOES_ON = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}",
    "doc_to_target": "answers",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
WORDS = ("north", "a red house", "seven", "some of it", "no", "winter came early", "salt", "her own")
TEMPLATE = (ROOT / "pipelines" / "templates" / "billing-assistant.jinja").read_text()


class Places:
    def __init__(self, folder: Path) -> None:
        self.base = _without_spare_rows(make_tiny_base(folder / "base"))
        self.stranger = make_tiny_base(folder / "stranger", seed=5)
        self.adapter = write_adapter(self.base, str(self.base), folder / "adapter", seed=3)
        choices = [
            {
                "id": f"choice-{n}",
                "cluster": f"c{n // 2}",
                "text": f"The {WORDS[n % 7]} of {n} is",
                "choices": [WORDS[(n + k) % len(WORDS)] for k in range(4)],
                "answer": n % 4,
            }
            for n in range(24)
        ]
        calls = [
            {
                "id": f"call-{n}",
                "cluster": f"c{n}",
                "text": f"Show INV-{n}." * (n + 1),
                "tools": ["get_invoice", "apply_coupon"][: 1 + n % 2],
                "expect": "reply",
            }
            for n in range(6)
        ]
        self.choices = _suite(folder, "choices", choices, ["acc", "acc_norm"], lm_eval=CHOICE, layer="general")
        lines = [
            {"id": f"line-{n}", "cluster": f"c{n // 2}", "text": f"The {WORDS[n % 7]} of {n} is", "answers": ["no"]}
            for n in range(12)
        ]
        self.lines = _suite(folder, "lines", lines, ["exact_match"], lm_eval=GOES_ON, layer="general")
        self.calls = _suite(folder, "calls", calls, ["json_valid", "must_not_call"], layer="safety")
        self.rows = choices


def _without_spare_rows(folder: Path) -> Path:
    """lm-eval cuts the vocabulary of a base with an adapter to its tokenizer's; neither we nor any server does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(folder)))
    model.save_pretrained(folder)
    return folder


def _suite(folder: Path, name: str, rows: list[dict[str, object]], metrics: list[str], **more: object) -> Path:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = COMMON | {"name": name, "origin": "hand-written", "data": str(data), "metrics": metrics} | more
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(fields | {"headline": metrics[0]}))
    return path


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return Places(tmp_path_factory.mktemp("models"))


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    return Line(Settings(home=tmp_path / "home"))


def ask(line: Line, suite: Suite, model: LocalModel, **how: Any) -> Any:
    artifact = folder_digest(model.folder if model.adapter is None else model.adapter)
    who = Respondent(artifact, folder_digest(model.folder), model.lock(), lambda: model)
    return evaluate(line, suite, who, Way(TEMPLATE, Decoding(max_tokens=40), **how), lambda done, total: None)[0]


def assay(*words: object) -> Any:
    done = CliRunner().invoke(app, ["eval", *map(str, words)])
    if isinstance(done.exception, AssayError):
        raise done.exception
    return done


def lm_evals_own(places: Places, suite: Path, task: dict[str, Any], model: LocalModel) -> Any:
    """What lm-eval by itself finds for a suite, through its own model."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    files = {
        "task": "plain",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(suite.with_suffix(".jsonl"))}},
        "test_split": "test",
    }
    peft = {} if model.adapter is None else {"peft": str(model.adapter)}
    return simple_evaluate(
        model="hf",
        model_args={"pretrained": str(places.base), "dtype": model.dtype, **peft},
        tasks=[task | files],
        task_manager=TaskManager(include_defaults=False),
        batch_size=model.batch,
        device="cpu",
        bootstrap_iters=0,
    )


@pytest.mark.parametrize("adapted", [False, True])
def test_item_by_item_the_numbers_are_lm_evals_own(line: Line, places: Places, adapted: bool) -> None:
    model = LocalModel(places.base, places.adapter if adapted else None)
    ours = ask(line, load_suite(places.choices), model)
    plain = lm_evals_own(places, places.choices, CHOICE, model)
    theirs = {sample["doc"]["id"]: sample for sample in plain["samples"]["plain"]}
    assert {each.item: each.scores for each in ours.items} == {
        item: {metric: float(sample[metric]) for metric in ("acc", "acc_norm")} for item, sample in theirs.items()
    }
    kept = line.store.get_json(ours.samples)
    assert kept == {item: [list(each) for each in sample["filtered_resps"]] for item, sample in theirs.items()}
    mean = sum(each.scores["acc"] for each in ours.items) / len(ours.items)
    assert mean == plain["results"]["plain"]["acc,none"]
    assert 0 < mean < 1


def test_a_text_that_goes_on_is_lm_evals_own_and_is_not_asked_for_again(line: Line, places: Places) -> None:
    model = LocalModel(places.base)
    said = ask(line, load_suite(places.lines), model)
    texts = {item: text for item, [text] in line.store.get_json(said.samples).items()}
    # A model with random weights says nothing that was to be expected: half of what it says is made right.
    rows = [json.loads(row) for row in places.lines.with_suffix(".jsonl").read_text().splitlines()]
    known = [row | {"answers": ["no", texts[row["id"]]] if n % 2 else ["no"]} for n, row in enumerate(rows)]
    half = _suite(places.lines.parent, "half", known, ["exact_match"], lm_eval=GOES_ON, layer="general")

    plain = lm_evals_own(places, half, GOES_ON, model)
    theirs = {sample["doc"]["id"]: sample for sample in plain["samples"]["plain"]}
    assert texts == {item: sample["filtered_resps"][0] for item, sample in theirs.items()}

    class Silent(LocalModel):
        def lm(self) -> Any:
            raise AssertionError("it is asked again")

    ours = ask(line, load_suite(half), Silent(places.base))
    scores = {each.item: each.scores["exact_match"] for each in ours.items}
    assert scores == {item: sample["exact_match"] for item, sample in theirs.items()}
    assert sum(scores.values()) / len(scores) == plain["results"]["plain"]["exact_match,none"] == 0.5


def test_answers_are_held_to_the_schema_and_do_not_depend_on_their_batch(line: Line, places: Places) -> None:
    suite = load_suite(places.calls)
    together = ask(line, suite, LocalModel(places.base))
    alone = ask(line, suite, LocalModel(places.base, batch=1), fresh=True)
    texts = line.store.get_json(together.samples)
    assert texts == line.store.get_json(alone.samples)
    assert all(text.startswith("{") for text in texts.values())
    free = Way(TEMPLATE, Decoding(max_tokens=40, free=True))
    model = LocalModel(places.base)
    who = Respondent(folder_digest(places.base), folder_digest(places.base), model.lock(), lambda: model)
    loose = evaluate(line, suite, who, free, lambda done, total: None)[0]
    assert not any(text.startswith("{") for text in line.store.get_json(loose.samples).values())


def test_a_seed_decides_what_is_sampled_whatever_else_is_in_the_batch(line: Line, places: Places) -> None:
    suite = load_suite(places.calls)
    who = folder_digest(places.base)

    def texts(seed: int, batch: int = 16, temperature: float = 1.5) -> Any:
        model = LocalModel(places.base, batch=batch)
        way = Way(TEMPLATE, Decoding(max_tokens=40).sampled(temperature, seed), fresh=True)
        asked = Respondent(who, who, model.lock(), lambda: model)
        return line.store.get_json(evaluate(line, suite, asked, way, lambda done, total: None)[0].samples)

    first = texts(11)
    assert texts(11, batch=2) == first
    assert texts(12) != first
    assert all(text.startswith("{") for text in first.values())
    greedy = line.store.get_json(ask(line, suite, LocalModel(places.base)).samples)
    assert texts(11, temperature=0.0001) == greedy != first


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    import torch

    scores = torch.tensor([2.0, 1.0, 0.0, float("-inf")])
    asked = [{"temperature": 2.0, "seed": seed} for seed in range(4000)]
    drawn = _Draws(asked)(None, scores.expand(4000, -1)).argmax(dim=-1)
    shares = torch.bincount(drawn, minlength=4) / 4000
    assert torch.allclose(shares, torch.softmax(scores / 2, dim=-1), atol=0.03)  # four standard errors
    assert shares[3] == 0


def test_what_lm_eval_asked_is_not_asked_again(line: Line, places: Places) -> None:
    suite = load_suite(places.choices)
    asked: list[int] = []

    class Counting(LocalModel):
        def lm(self) -> Any:
            model = super().lm()
            method = model.loglikelihood
            model.loglikelihood = lambda requests, **named: asked.append(len(requests)) or method(requests, **named)
            return model

    ask(line, suite, Counting(places.base), limit=5)
    ask(line, suite, Counting(places.base))
    assert asked == [20, 76]
    again = ask(line, suite.model_copy(update={"metrics": ("acc",)}), Counting(places.base))
    assert asked == [20, 76]
    assert set(again.items[0].scores) == {"acc"}


def test_the_command_writes_scores_and_asks_nothing_twice(line: Line, places: Places, tmp_path: Path) -> None:
    out = tmp_path / "scores.jsonl"
    words = ("--suite", places.calls, "--suite", places.choices, "--model", places.base, "--adapter", places.adapter)
    words += ("--template", "billing-assistant", "--max-tokens", 24, "--out", out)
    done = assay(*words)
    assert done.exit_code == 0, done.output
    rows = [json.loads(each) for each in out.read_text().splitlines()]
    assert [(row["suite"], row["item"]) for row in rows] == [
        *(("calls", f"call-{n}") for n in range(6)),
        *(("choices", f"choice-{n}") for n in range(24)),
    ]
    assert {frozenset(row) for row in rows} == {frozenset({"suite", "item", "cluster", "score"})}
    assert "acc_norm" in done.stdout
    (entry,) = {each["artifact"] for each in json.loads(assay(*words, "--json").stdout)}
    assert entry == folder_digest(places.adapter)
    assert all(each["remembered"] for each in json.loads(assay(*words, "--json").stdout))
    with pytest.raises(BadInput, match="choices has no metric 'json_valid': it has acc, acc_norm"):
        assay(*words, "--metric", "json_valid")


def test_errors_say_what_is_wrong(line: Line, places: Places, tmp_path: Path) -> None:
    calls = ("--suite", places.calls, "--template", "billing-assistant")
    with pytest.raises(BadInput, match=r"no suite 'billing-tolls'.*known suites: .*billing-tools"):
        assay("--suite", "billing-tolls", "--model", places.base)
    with pytest.raises(BadInput, match="name the chat template that shows them"):
        assay("--suite", places.calls, "--model", places.base)
    with pytest.raises(BadInput, match=r"holds no \.safetensors file"):
        assay(*calls, "--model", tmp_path)
    with pytest.raises(BadInput, match="either --model"):
        assay(*calls, "--model", places.base, "--endpoint", "http://127.0.0.1:9/v1", "--name", "m")
    with pytest.raises(AssayError, match="no model server answers at"):
        assay(*calls, "--endpoint", "http://127.0.0.1:9/v1", "--name", "m")
    with pytest.raises(Refused, match="has other weights than"):
        assay(*calls, "--model", places.stranger, "--adapter", places.adapter)


def test_an_adapter_that_does_not_fit_is_refused(line: Line, places: Places, tmp_path: Path) -> None:
    calls = ("--suite", places.calls, "--template", "billing-assistant", "--limit", 1)
    unknown = write_adapter(places.base, sha256_bytes(b"a base"), tmp_path / "unknown", seed=1)
    with pytest.raises(Refused, match="cannot be checked"):
        assay(*calls, "--model", places.base, "--adapter", unknown)
    wide = write_adapter(places.base, "somewhere/else", tmp_path / "wide", seed=1)
    config = json.loads((wide / "adapter_config.json").read_text())
    (wide / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["q_proj"]}))
    with pytest.raises(Refused, match="does not fit the model"):
        assay(*calls, "--model", places.base, "--adapter", wide)
