"""The dashboards that ship: Grafana can import them, and they ask for what the gateway exports, by its labels."""

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pipelines.recipes.product import ROOT, Keep
from pipelines.stages.release.shadow import begin_shadow
from pipelines.stages.serve.routes import challenging, share_traffic
from tests.support.dashboards import FOLDER, dashboard, exported, expressions, named
from tests.support.gateway import Installation, installed

BOARDS = sorted(path.stem for path in FOLDER.glob("*.json"))
VARIABLE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_can_import_it(name: str) -> None:
    board = dashboard(name)
    assert board["title"]
    assert board["uid"].startswith("assay-")
    assert board["schemaVersion"] >= 39
    assert "id" not in board, "a number of somebody's own Grafana"
    kinds = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert kinds["datasource"] == "datasource"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["type"] in ("timeseries", "stat", "table")
        assert panel["datasource"] == VARIABLE
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert all(target["expr"] and target["datasource"] == VARIABLE for target in panel["targets"])
    for one, other in combinations([panel["gridPos"] for panel in board["panels"]], 2):
        assert _apart(one, other)


def told(home: Installation) -> list[str]:
    """Metrics that have counted something."""
    return [line.partition("{")[0] for line in home.scraped().splitlines() if "{" in line]


def test_the_gateways_asks_for_what_the_gateway_exports_and_shows_all_of_it(tmp_path: Path) -> None:
    with installed(tmp_path, keep=Keep(share=1)) as home:
        home.promote("a")
        said = {"trace_id": home.ask().json()["id"], "rating": "good"}
        assert home.client.post("/v1/feedback", json=said).status_code == 202
        home.ask(stream=True)
        home.ask(model="no-such")
        rival = home.release("b")
        with challenging(home.parts, home.product, rival):
            share_traffic(home.parts, home.product, rival, 1.0, seconds=60)
            home.ask(user="somebody")
            begin_shadow(home.parts, home.product, rival, 1.0, actor="test")
            share_traffic(home.parts, home.product, rival, 0.01, seconds=60)
            while not {"assay_shadow_requests_total", "assay_kept_answers_total"} <= set(told(home)):
                home.ask()
            known = exported(home.scraped())
    board = dashboard("gateway")
    shown: set[str] = set()
    for expression in expressions(board):
        metrics, labels = named(expression)
        assert metrics <= known.keys(), expression
        assert labels <= set().union(*(known[metric] for metric in metrics)), expression
        shown |= metrics
    families = {name.removesuffix("_bucket") for name in shown}
    every = {name.removesuffix("_bucket") for name in known if not name.endswith(("_created", "_sum", "_count"))}
    assert every == families, "exported, and on no panel"
    assert every == set(re.findall(r"`(assay_\w+)`", (ROOT / "docs" / "serving.md").read_text()))
    (query,) = [each["definition"] for each in board["templating"]["list"] if each["type"] == "query"]
    metric, label = query.removeprefix("label_values(").removesuffix(")").split(", ")
    assert label in known[metric]


@pytest.mark.parametrize(
    ("expression", "metrics", "labels"),
    [
        ('sum by (a, b) (rate(x_total{c=~"$product", d!="e"}[$__rate_interval])) / 2', {"x_total"}, set("abcd")),
        ("histogram_quantile(0.5, sum by (le) (rate(vllm:x_bucket[5m])))", {"vllm:x_bucket"}, {"le"}),
        ("(sum(rate(x_total[1m])) or vector(0)) / max(y)", {"x_total", "y"}, set()),
    ],
)
def test_what_an_expression_names_is_found(expression: str, metrics: set[str], labels: set[str]) -> None:
    assert named(expression) == (metrics, labels)


def _apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    assert all(each["x"] + each["w"] <= 24 for each in (one, other))
    return (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )
