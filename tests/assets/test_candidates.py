"""From the verdict on every step names its candidate; a verdict that does not promote registers nothing."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import evaluation, release
from assets.candidates import SELECTED
from assets.groups import PRODUCTS
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import LayerResults
from pipelines.stages.release.dossier import of_verdict
from tests.assets.conftest import PRODUCT, Runner, reason
from tests.support.line import REPORT, SmallLine

JUDGED = [*evaluation.layers, release.verdict, release.candidate, release.promotes]
LAYERS = ("product", "safety", "general", "serving")
STEPS = (*(f"eval__{layer}" for layer in LAYERS), "release__verdict", "release__candidate")


@pytest.fixture
def scores(small: SmallLine, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Score of a candidate by its weights; 1.0 when it is not listed."""
    listed: dict[str, float] = {}

    def evaluate(parts: Any, product: Any, layer: str, base: Any, model: ModelManifest, champion: Any) -> Any:
        verdict = small.verdict(model, champion, listed.get(model.weights, 1.0))
        return LayerResults(product=PRODUCT, model=model.digest, layer=layer, results=verdict.results), False

    monkeypatch.setattr(evaluation, "evaluate_layer", evaluate)
    monkeypatch.setattr(release.dossier, "of_verdict", lambda *inputs: REPORT)
    return listed


def selecting(model: ModelManifest) -> dg.AssetsDefinition:
    """Stands for model/selected."""

    @dg.asset(key=SELECTED, partitions_def=PRODUCTS)
    def selected() -> dg.MaterializeResult[ModelManifest]:
        return dg.MaterializeResult(value=model)

    return selected


def registered(small: SmallLine) -> list[object]:
    return [r.body["model"] for r in small.parts.log.records() if r.event == "release.registered"]


def named(model: ModelManifest) -> dict[str, dict[str, str]]:
    return {step: {"candidate": model.digest} for step in STEPS}


def test_a_run_judges_the_model_that_it_selected(run: Runner, scores: dict[str, float]) -> None:
    model = run.small.candidate()

    result = run([selecting(model), *JUDGED])

    assert result.success
    assert registered(run.small) == [model.digest]


def test_a_run_that_selects_nothing_must_name_its_candidate(run: Runner, scores: dict[str, float]) -> None:
    """The newest selected model of the product is never taken in its place."""
    run([selecting(run.small.candidate())])

    result = run(JUDGED)

    assert not result.success
    assert "name one in its config (candidate: sha256:...)" in reason(result)
    assert registered(run.small) == []


def test_a_verdict_that_holds_a_candidate_has_a_dossier_too(
    run: Runner, scores: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.small.candidate()
    scores[model.weights] = 0.0
    monkeypatch.setattr(release.dossier, "of_verdict", of_verdict)

    result = run([selecting(model), *JUDGED])

    (shown,) = result.asset_materializations_for_node("release__verdict")
    page = Path(str(shown.metadata["page"].value))
    assert page.is_relative_to(run.small.parts.home / "reports")
    assert "<h1>Inconclusive: small" in page.read_text().replace(PRODUCT, "small")
    assert str(shown.metadata["report"].value).startswith("# INCONCLUSIVE")


def test_an_older_candidate_is_judged_by_its_digest(run: Runner, scores: dict[str, float]) -> None:
    older, newer = run.small.candidate(1), run.small.candidate(2)
    run([selecting(newer)])

    assert run(JUDGED, named(older)).success
    assert registered(run.small) == [older.digest]


def test_a_judgement_is_about_its_own_candidate(run: Runner, scores: dict[str, float]) -> None:
    """The verdict on one model is not found for another, even right after it."""
    judged, other = run.small.candidate(1), run.small.candidate(2)
    run(JUDGED, named(judged))

    result = run([release.candidate], {"release__candidate": {"candidate": other.digest}})

    assert "release/verdict was never made for candidate" in reason(result)


def test_a_held_candidate_is_not_registered_and_says_why(run: Runner, scores: dict[str, float]) -> None:
    model = run.small.candidate()
    scores[model.weights] = 0.0

    result = run([selecting(model), *JUDGED])

    (check,) = result.get_asset_check_evaluations()
    assert not result.success
    assert (check.check_name, check.passed, check.blocking) == ("promotes", False, True)
    assert "better" in check.description
    assert registered(run.small) == []


@pytest.mark.parametrize(
    ("candidate", "told"), [("latest", "is not a digest"), ("sha256:" + "0" * 64, "is not in the store")]
)
def test_a_candidate_that_is_none_is_refused(run: Runner, scores: dict[str, float], candidate: str, told: str) -> None:
    result = run([evaluation.layers[0]], {"eval__product": {"candidate": candidate}})

    assert told in reason(result)
