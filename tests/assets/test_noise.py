"""A policy's seeds in Dagster: the layer asks again, the verdict holds to the floor, the dossier tells it."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets import evaluation, release
from tests.assets.conftest import PRODUCT, Runner, reason
from tests.assets.test_candidates import named, selecting
from tests.support.noise import ITEMS, SEEDS, NoisyLine, reply
from tests.support.teacher import TeacherServer, teaching

JUDGED = [*evaluation.layers, release.verdict]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    with teaching(reply) as server:
        yield server


@pytest.fixture
def noisy(server: TeacherServer, tmp_path: Path) -> NoisyLine:
    return NoisyLine(tmp_path / "line", server, PRODUCT)


@pytest.fixture
def run(noisy: NoisyLine, instance: dg.DagsterInstance) -> Runner:
    return Runner(noisy.small, instance)


def test_the_layer_shows_the_re_runs_and_the_dossier_the_floor(
    run: Runner, noisy: NoisyLine, server: TeacherServer
) -> None:
    result = run([selecting(noisy.model), *JUDGED])

    assert result.success, reason(result)
    assert len(server.bodies) == ITEMS * (2 + len(SEEDS))
    (layer,) = result.asset_materializations_for_node("eval__product")
    assert "facts/base, re-run 2" in str(layer.metadata["scores"].value)
    (verdict,) = result.asset_materializations_for_node("release__verdict")
    told = str(verdict.metadata["report"].value)
    page = Path(str(verdict.metadata["page"].value)).read_text()
    assert "each baseline was asked again with the seeds 11, 12 at temperature 0.7" in told
    assert "each baseline was asked again with the seeds 11, 12 at temperature 0.7" in page
    assert "not measured" not in page.partition('<h2 id="lost"')[0]


def test_a_verdict_on_layers_without_the_re_runs_that_the_policy_asks_for_fails(run: Runner, noisy: NoisyLine) -> None:
    noisy.policy(noise={})
    assert run([selecting(noisy.model), *evaluation.layers]).success
    noisy.policy()

    result = run([release.verdict], {"release__verdict": named(noisy.model)["release__verdict"]})

    assert "asks for re-runs of facts/base with 2 seeds, and 0 are there: evaluate again" in reason(result)
