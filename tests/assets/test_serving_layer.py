"""The serving layer behind Dagster: measured once, again where it is asked for, and judged with the rest."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from assets import evaluation, release
from tests.assets.conftest import PRODUCT, Runner
from tests.support.speed import SpeedLine
from tests.support.streaming import Pace, streaming

STEP = "eval__serving"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[SpeedLine]:
    with streaming(lambda text: Pace()) as server:
        yield SpeedLine(tmp_path, server, PRODUCT)


@pytest.fixture
def run(line: SpeedLine, instance) -> Runner:
    return Runner(line.small, instance)


def test_it_is_measured_once_and_again_when_it_is_asked_for(run: Runner, line: SpeedLine) -> None:
    model = run.small.candidate().digest
    hits = []
    for config in ({}, {}, {"fresh": True}):
        result = run([evaluation.serving], {STEP: {"candidate": model} | config})
        assert result.success
        (made,) = result.asset_materializations_for_node(STEP)
        hits.append(made.metadata["hit"].value)
    assert hits == [False, True, False]
    assert made.metadata["machine"].value == "made up"
    assert "| small-speed/candidate | failed | 16 | 0.000 |" in made.metadata["scores"].value
    assert "question" not in str(made.metadata)


def test_the_verdict_names_it_and_the_dossier_shows_it(
    run: Runner, line: SpeedLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.small.candidate()
    monkeypatch.setattr(evaluation, "evaluate_layer", lambda *asked: (run.small.scored(model), False))
    config = {f"eval__{layer}": {"candidate": model.digest} for layer in ("product", "safety", "general", "serving")}

    result = run([*evaluation.layers, release.verdict], config | {"release__verdict": {"candidate": model.digest}})

    assert result.success
    (shown,) = result.asset_materializations_for_node("release__verdict")
    assert set(shown.metadata["content"].value["results"]) >= {"small-speed/base", "small-speed/candidate"}
    for page in (str(shown.metadata["report"].value), Path(str(shown.metadata["page"].value)).read_text()):
        assert "16 requests of each, 4 at once, in 4 rounds" in page
        assert "tokens a second, median round" in page


def test_a_product_without_a_speed_test_says_so(run: Runner, line: SpeedLine) -> None:
    product = line.folder / "products" / f"{PRODUCT}.yaml"
    product.write_text("\n".join(each for each in product.read_text().splitlines() if not each.startswith("speed:")))

    result = run([evaluation.serving], {STEP: {"candidate": run.small.candidate().digest}})

    (made,) = result.asset_materializations_for_node(STEP)
    assert made.metadata["note"].value == "the product names no speed test"
    assert line.server.asked == []
