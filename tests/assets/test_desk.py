"""The technique desk behind Dagster: a sheet about the model that is named, and no part of the line."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets import desk
from pipelines.automation import jobs
from pipelines.cli import LINE
from pipelines.definitions import definitions
from resources.dagster import Manifests
from tests.assets.conftest import PRODUCT, Runner, reason
from tests.support.desk import DeskLine, answering

STEP = "eval__techniques"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


@pytest.fixture
def line(tmp_path: Path) -> Iterator[DeskLine]:
    with answering() as server:
        yield DeskLine(tmp_path, server, PRODUCT)


@pytest.fixture
def run(line: DeskLine, instance: dg.DagsterInstance) -> Runner:
    return Runner(line.small, instance)


def test_the_sheet_is_shown_and_kept_for_its_candidate(run: Runner) -> None:
    model = run.small.candidate()
    result = run([desk.techniques], {STEP: {"candidate": model.digest}})
    assert result.success
    (made,) = result.asset_materializations_for_node(STEP)
    assert (made.metadata["technique"].value, made.metadata["decision"].value) == ("fine-tuned", "recommend")
    assert made.metadata["sheet"].value.startswith(f"# Take fine-tuned: {PRODUCT}")
    assert "topic" not in str(made.metadata)
    assert Path(str(made.metadata["page"].value)).is_file()
    manifests = Manifests(run.small.parts.home / "manifests", run.small.parts.store)
    assert manifests.of_model(desk.techniques.key, model.digest) == made.metadata["manifest"].value


def test_without_a_candidate_it_says_how_to_name_one(run: Runner) -> None:
    assert "name one in its config (candidate: sha256:...)" in reason(run([desk.techniques]))


def test_neither_the_line_nor_the_gate_asks_the_desk() -> None:
    graph = definitions().resolve_asset_graph()
    layers = {dg.AssetKey(["eval", name]) for name in ("product", "safety", "general", "serving")}
    for selection in (dg.AssetSelection.from_string(LINE), jobs.UP_TO_CANDIDATE, jobs.EVALUATION):
        keys = selection.resolve(graph)
        assert layers <= keys
        assert desk.techniques.key not in keys
    assert desk.techniques.key not in graph.get(dg.AssetKey(["release", "verdict"])).parent_keys
