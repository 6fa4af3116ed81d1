"""The whole evaluation on a real vLLM with the tiny base: every item is asked, scored and remembered."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from data_contracts.digests import sha256_bytes
from data_contracts.errors import BadInput, Refused, Unavailable
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult
from evals import lm_harness
from evals.chat import Endpoint
from evals.kept import Respondent
from evals.run import NO_TEMPLATE, evaluate_layer
from evals.suite import load_suite
from pipelines.cli import app
from pipelines.recipes.product import Product
from pipelines.stages.train.hardware import computes_bf16
from pipelines.wiring import Line
from resources.vllm_server import VllmServer
from tests.support.adapters import tiny_adapter

ANY = sha256_bytes(b"any")
COMMON = {"description": "d", "unit": "item", "cluster": "c", "direction": "higher-is-better", "licence": "none"}
PROBE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{text}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "target_delimiter": " ",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
GOES_ON = {
    "output_type": "generate_until",
    "doc_to_text": "{{text}}",
    "doc_to_target": "answers",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


def write_suite(folder: Path, name: str, items: list[dict[str, object]], **fields: object) -> str:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    suite = folder / f"{name}.yaml"
    suite.write_text(yaml.safe_dump(COMMON | fields | {"name": name, "origin": "hand-written", "data": str(data)}))
    return str(suite)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    folder = tmp_path_factory.mktemp("suites")
    calls = [
        {
            "id": f"call-{n}",
            "cluster": f"c{n}",
            "text": f"Show INV-{n}.",
            "tools": ["get_invoice", "apply_coupon"],
            "expect": "call",
            "tool": "get_invoice",
            "arguments": {"invoice_id": f"INV-{n}"},
        }
        for n in range(6)
    ]
    choices = [
        {"id": f"choice-{n}", "cluster": f"c{n}", "text": f"{n} and", "choices": list("abcd"), "answer": n % 4}
        for n in range(5)
    ]
    lines = [{"id": f"line-{n}", "cluster": f"c{n}", "text": f"{n} and", "answers": ["x"]} for n in range(4)]
    exact: dict[str, object] = {"metrics": ["exact_match"], "headline": "exact_match"}
    metrics = ["json_valid", "exact", "ragas_tool_call_accuracy"]
    compared = [
        {"kind": "superiority", "suite": "calls", "metric": "exact"},
        {"kind": "non-inferiority", "suite": "choices", "metric": "acc"},
    ]
    policy = {"criteria": compared, "noise": {"seeds": [11, 12], "temperature": 1.5}}
    (folder / "gate.yaml").write_text(yaml.safe_dump(policy))
    return Product(
        name="tiny",
        tenant="demo",
        description="a product for tests",
        sources=({"url": "generated://none", "contract": "none"},),
        data_policy="none",
        recipe="none",
        template="billing-assistant",
        suites=(
            write_suite(folder, "calls", calls, layer="product", metrics=metrics, headline="exact"),
            write_suite(folder, "choices", choices, layer="general", metrics=["acc"], headline="acc", lm_eval=PROBE),
            write_suite(folder, "lines", lines, layer="general", lm_eval=GOES_ON, **exact),
        ),
        gate_policy=str(folder / "gate.yaml"),
        serving={"max_tokens": 48},
    )


@pytest.fixture(scope="module")
def model(
    tiny_line: Line, tiny_base_manifest: BaseManifest, product: Product, tmp_path_factory: pytest.TempPathFactory
) -> ModelManifest:
    return ModelManifest(
        product=product.name,
        base=tiny_base_manifest.digest,
        template=product.template_digest(),
        weights=tiny_adapter(tiny_line.store, tiny_base_manifest, tmp_path_factory.mktemp("adapter"), seed=70),
        method="lora",
        rank=4,
        checkpoint=ANY,
        datasets=(),
        recipe=ANY,
        licences=(),
        synthetic_share=0.0,
        action_key=ANY,
    )


class NoServer:
    """Answers nothing: whoever needs it fails."""

    def __getattr__(self, name: str) -> Iterator[None]:
        raise AssertionError(f"the server was asked for {name}")


class Remembering:
    def __init__(self, line: Line) -> None:
        self.store, self.answers, self.server = line.store, line.answers, NoServer()


def test_calls_are_asked_scored_and_remembered(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, product: Product, model: ModelManifest
) -> None:
    layer, hit = evaluate_layer(tiny_line, product, "product", tiny_base_manifest, model, None)
    assert not hit
    assert set(layer.results) == {"calls/base", "calls/candidate"}
    base, candidate = (
        tiny_line.store.get_manifest(layer.results[f"calls/{s}"], EvalResult) for s in ("base", "candidate")
    )
    assert (base.artifact, candidate.artifact) == (tiny_base_manifest.digest, model.weights)
    assert [score.item for score in candidate.items] == [f"call-{n}" for n in range(6)]
    assert base.decoding != candidate.decoding
    assert candidate.engine.startswith("vllm ")
    assert base.samples is not None
    for result in (base, candidate):
        assert result.confidence.keys() == {score.item for score in result.items}
        assert all(-30 < sure <= 0 for sure in result.confidence.values())
    # Random weights under the schema write JSON of the right form, until they run out of tokens.
    texts = tiny_line.store.get_json(base.samples)
    assert all(re.match(r'\{\s*("tool"\s*(:\s*"|:?$)|$)', text) for text in texts.values())
    # Each seed of the policy writes other texts, of the same form.
    again = [tiny_line.store.get_manifest(digest, EvalResult) for digest in layer.reruns["calls/base"]]
    sampled = [tiny_line.store.get_json(str(result.samples)) for result in again]
    assert all(re.match(r'\{\s*("tool"\s*(:\s*"|:?$)|$)', text) for each in sampled for text in each.values())
    assert texts != sampled[0] != sampled[1] != texts
    # Nothing is asked again, and a model that is live already is no rival of itself.
    for champion in (None, model):
        known = evaluate_layer(Remembering(tiny_line), product, "product", tiny_base_manifest, model, champion)
        assert known == (layer, True)


def test_lm_eval_scores_every_item_on_the_served_model(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, product: Product, model: ModelManifest
) -> None:
    layer, hit = evaluate_layer(tiny_line, product, "general", tiny_base_manifest, model, None)
    assert not hit
    for subject in ("base", "candidate"):
        result = tiny_line.store.get_manifest(layer.results[f"choices/{subject}"], EvalResult)
        assert [score.item for score in result.items] == [f"choice-{n}" for n in range(5)]
        assert {score.scores["acc"] for score in result.items} <= {0.0, 1.0}
        assert result.template == NO_TEMPLATE
        assert "lm-eval 0.4" in result.engine
        said = tiny_line.store.get_manifest(layer.results[f"lines/{subject}"], EvalResult)
        assert {score.item: score.scores for score in said.items} == {
            f"line-{n}": {"exact_match": 0.0} for n in range(4)
        }
        assert said.samples is not None
        assert all(isinstance(text, str) for [text] in tiny_line.store.get_json(said.samples).values())
    # No seed decides a likelihood.
    assert layer.reruns["choices/base"] == (layer.results["choices/base"],) * 2
    assert evaluate_layer(Remembering(tiny_line), product, "general", tiny_base_manifest, model, None) == (layer, True)


def test_a_model_of_another_base_is_refused(
    tiny_line: Line, tiny_base_manifest: BaseManifest, product: Product, model: ModelManifest
) -> None:
    stranger = model.model_copy(update={"base": ANY})
    with pytest.raises(Refused, match="was made for base"):
        evaluate_layer(tiny_line, product, "product", tiny_base_manifest, stranger, None)


@pytest.mark.drill
def test_a_failing_lm_eval_says_why(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, product: Product
) -> None:
    suite = load_suite(Path(product.suites[1]))
    endpoint = Endpoint(tiny_vllm.url(), tiny_vllm.base_name(), lambda: tiny_line.store.tree(tiny_base_manifest.tree))
    endpoint.card = lambda: {"max_model_len": 2048}  # type: ignore[method-assign]
    endpoint.name = "nobody"
    who = Respondent(ANY, ANY, "nobody", lambda: endpoint)
    with pytest.raises(Unavailable, match="lm-eval failed on suite choices"):
        lm_harness.probe(suite, tiny_line.answers, who, lambda done, total: None)


def test_through_vllm_and_through_transformers_an_item_gets_the_same(
    tiny_line: Line,
    tiny_vllm: VllmServer,
    tiny_base_manifest: BaseManifest,
    product: Product,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both compute in the same precision, in another order: likelihoods may differ by rounding, which bfloat16 does to
    eight bits, and what is greedy where two tokens are as likely."""
    monkeypatch.setenv("ASSAY_HOME", str(tiny_line.home))
    base = tiny_line.store.tree(tiny_base_manifest.tree)
    served = ["--endpoint", tiny_vllm.url(), "--name", tiny_vllm.base_name(), "--tokenizer", str(base)]
    likelihoods, texts = [], []
    for who in (["--model", str(base)], served):
        words = ["--suite", product.suites[0], "--suite", product.suites[1], "--template", "billing-assistant", *who]
        done = CliRunner().invoke(app, ["eval", *words, "--json", "--max-tokens", "24"])
        assert done.exit_code == 0, done.exception
        calls, choices = (tiny_line.store.get_json(each["samples"]) for each in json.loads(done.stdout))
        texts.append(calls)
        likelihoods.append({(item, n): value for item, got in choices.items() for n, (value, _) in enumerate(got)})
    within = 0.25 if computes_bf16() else 0.05
    assert max(abs(value - likelihoods[1][each]) for each, value in likelihoods[0].items()) < within
    assert sum(text == texts[1][item] for item, text in texts[0].items()) >= len(texts[0]) - 1
    with pytest.raises(BadInput, match="serves no model 'nobody'"):
        CliRunner().invoke(app, ["eval", *words, "--name", "nobody"], catch_exceptions=False)
