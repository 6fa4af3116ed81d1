"""Grafana dashboards as they ship: their queries, and the metrics and labels that those name."""

import json
import re
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from pipelines.recipes.product import ROOT

FOLDER = ROOT / "pipelines" / "dashboards"
_MATCHERS = re.compile(r"\{([^}]*)\}")
_GROUPS = re.compile(r"\b(?:by|on|without)\s*\(([^)]*)\)")
_TEXTS = re.compile(r'"[^"]*"')
_NAMES = re.compile(r"[a-zA-Z_:][\w:]*")
_METRICS = re.compile(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()")
_OPERATORS = {"and", "or", "unless", "bool", "ignoring", "group_left", "group_right", "offset"}


def dashboard(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return read


def expressions(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def named(expression: str) -> tuple[set[str], set[str]]:
    """(metrics, labels) of a PromQL expression.

    >>> named('sum by (a) (rate(x_total{b=~"c"}[$__range])) / 2')
    ({'x_total'}, {'a', 'b'})
    """
    plain = _TEXTS.sub("", expression)
    labels = {name for part in (*_MATCHERS.findall(plain), *_GROUPS.findall(plain)) for name in _NAMES.findall(part)}
    bare = re.sub(r"\[[^\]]*\]", "", _GROUPS.sub("", _MATCHERS.sub("", plain)))
    return set(_METRICS.findall(bare)) - _OPERATORS, labels


def exported(text: str) -> dict[str, set[str]]:
    """Each series name of Prometheus' text format with the labels it was seen with."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found
