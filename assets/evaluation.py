"""Each layer asks base, champion and candidate the same questions; scores, no text. The last one times them."""

import dagster as dg
from pydantic import Field

from assets.candidates import SELECTED, Candidate, candidate_model, champion_model
from assets.groups import asset_in
from assets.outcome import Shown, materialized, table
from data_contracts.manifests import BaseManifest
from data_contracts.verdicts import EvalResult, LayerResults
from evals.as_served import LAYER, measure_layer
from evals.judging import left_out
from evals.run import evaluate_layer, is_asked
from evals.suite import Layer, load_suites
from evals.trust import shown
from pipelines.wiring import Line
from resources.dagster import Manifests

LAYERS: dict[Layer, str] = {
    "product": "The product's own goldens: is the tool call valid and exact, is a call declined where none fits?",
    "safety": "Refusals and planted canaries: does it decline what it must, and only that? Does it recite secrets?",
    "general": "What the base could do and must not be forgotten (lm-eval).",
}
eval_asset = asset_in("eval", "evals", "data_contracts")


def layer_asset(layer: Layer, description: str) -> dg.AssetsDefinition:
    @eval_asset(name=layer, description=description, deps=[SELECTED], kinds={"vllm", "lm_eval"}, pool="gpu")
    def evaluate(
        context: dg.AssetExecutionContext,
        line: dg.ResourceParam[Line],
        manifests: dg.ResourceParam[Manifests],
        config: Candidate,
    ) -> dg.MaterializeResult[LayerResults]:
        product = line.product(context.partition_key)
        model = candidate_model(context, line, manifests, config)
        if not is_asked(product, layer):
            nothing = LayerResults(product=product.name, model=model.digest, layer=layer, results={})
            return materialized((nothing, True), {"note": "the product names no suite of this layer"})
        base = line.store.get_manifest(model.base, BaseManifest)
        made = evaluate_layer(line, product, layer, base, model, champion_model(line, product))
        told: dict[str, Shown] = {"candidate": model.digest, "scores": _scores(line, made[0])}
        missing = [said for suite in load_suites(product) if suite.step == layer and (said := left_out(line, suite))]
        return materialized(made, told | ({"note": "; ".join(missing)} if missing else {}))

    return evaluate


class Timed(Candidate):
    fresh: bool = Field(default=False, description="Measure again what was measured on such a machine before.")


@eval_asset(name=LAYER, deps=[SELECTED], kinds={"vllm"}, pool="gpu")
def serving(
    context: dg.AssetExecutionContext,
    line: dg.ResourceParam[Line],
    manifests: dg.ResourceParam[Manifests],
    config: Timed,
) -> dg.MaterializeResult[LayerResults]:
    """As it is served, in turns with what it would replace: first token, time between tokens, throughput, failures."""
    product = line.product(context.partition_key)
    model = candidate_model(context, line, manifests, config)
    if product.speed is None:
        nothing = LayerResults(product=product.name, model=model.digest, layer=LAYER, results={})
        return materialized((nothing, True), {"note": "the product names no speed test"})
    base = line.store.get_manifest(model.base, BaseManifest)
    made = measure_layer(line, product, base, model, champion_model(line, product), config.fresh)
    return materialized(
        made,
        {
            "candidate": model.digest,
            "machine": str(line.server.setup()["machine"]),
            "scores": _scores(line, made[0]),
        },
    )


layers = [*(layer_asset(layer, description) for layer, description in LAYERS.items()), serving]


def _scores(line: Line, results: LayerResults) -> dg.MarkdownMetadataValue:
    """Mean of each metric by suite and subject."""
    rows: list[tuple[str, str, int, str]] = []
    again = [(f"{name}, re-run {n}", each) for name, run in results.reruns.items() for n, each in enumerate(run, 1)]
    for name, digest in sorted([*results.results.items(), *again]):
        result = line.store.get_manifest(digest, EvalResult)
        items = result.items
        metrics = sorted({metric for item in items for metric in item.scores})
        for metric in metrics:
            scores = [item.scores[metric] for item in items if metric in item.scores]
            rows.append((name, shown(metric, result), len(scores), f"{sum(scores) / len(scores):.3f}"))
    return table(("suite/subject", "metric", "n", "mean"), rows)
