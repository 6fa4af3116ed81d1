"""Suites: what is asked, in which layer, on which terms. One YAML each, its items as JSON lines beside it.

Items are of two kinds: a customer's message with the tools on offer and the right behaviour (`CallItem`), and a
question with four choices that lm-eval scores by likelihood (`ChoiceItem`).
"""

import json
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.records import ToolSpec
from pipelines.recipes.product import ROOT, Product

TOOLS = ROOT / "evals" / "goldens" / "tools.jsonl"

Layer = Literal["product", "safety", "general"]


class CallItem(Frozen):
    """A message and what must be answered: this call, an answer in words, or a refusal in words."""

    id: str
    cluster: str
    text: str
    tools: tuple[str, ...] = Field(min_length=1)
    expect: Literal["call", "reply", "refuse"]
    tool: str | None = None
    arguments: dict[str, str] | None = None

    @model_validator(mode="after")
    def _is_answerable(self) -> "CallItem":
        offered = {tool.name: tool for tool in self.offered()}
        if self.expect != "call":
            if self.tool is not None or self.arguments is not None:
                raise ValueError(f"{self.id}: expects words and yet names a tool")
        elif self.tool not in offered:
            raise ValueError(f"{self.id}: the tool to call, {self.tool}, is not on offer")
        elif set(self.arguments or {}) != set(offered[self.tool].parameters):
            raise ValueError(f"{self.id}: the arguments are not those of {self.tool}")
        return self

    def offered(self) -> tuple[ToolSpec, ...]:
        catalogue = tool_catalogue()
        if unknown := [name for name in self.tools if name not in catalogue]:
            raise ValueError(f"{self.id}: no tool {', '.join(unknown)} in {TOOLS.name}")
        return tuple(catalogue[name] for name in self.tools)


class ChoiceItem(Frozen):
    """A question or an unfinished sentence; ``answer`` is the index of the right one of four choices."""

    id: str
    cluster: str
    text: str
    choices: tuple[str, str, str, str]
    answer: int = Field(ge=0, le=3)


ItemT = TypeVar("ItemT", CallItem, ChoiceItem)


class Suite(Frozen):
    """``headline`` is the metric that stands for the suite. ``lm_eval`` is a task in lm-eval's own format, for suites
    that lm-eval runs; the data set is filled in when it runs."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    layer: Layer
    description: str
    unit: str
    cluster: str
    direction: Literal["higher-is-better"]
    licence: str
    origin: Literal["hand-written"]
    data: str
    metrics: tuple[str, ...] = Field(min_length=1)
    headline: str
    lm_eval: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _headline_is_measured(self) -> "Suite":
        if self.headline not in self.metrics:
            raise ValueError(f"the headline {self.headline} is none of the metrics")
        return self

    def data_path(self) -> Path:
        return ROOT / self.data

    def items(self) -> tuple[CallItem, ...] | tuple[ChoiceItem, ...]:
        """The items in file order. Raises `BadInput` for a row that does not fit and for an id that comes twice."""
        path = self.data_path()
        return read_items(path, CallItem) if self.lm_eval is None else read_items(path, ChoiceItem)

    def content_digest(self) -> Digest:
        """Names the question paper: this file's fields, the bytes of the items and of the tool catalogue."""
        return sha256_json({"suite": self.digest, "data": sha256_file(self.data_path()), "tools": sha256_file(TOOLS)})


@cache
def tool_catalogue() -> dict[str, ToolSpec]:
    rows = (json.loads(line) for line in TOOLS.read_text().splitlines())
    return {row["name"]: ToolSpec.model_validate(row) for row in rows}


def load_suite(path: Path) -> Suite:
    try:
        suite = Suite.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error
    if not suite.data_path().is_file():
        raise BadInput(f"{path}: its data are not at {suite.data_path()}")
    return suite


def load_suites(product: Product) -> tuple[Suite, ...]:
    return tuple(load_suite(product.file("suite", name)) for name in product.suites)


def is_probe(suite: Suite) -> bool:
    """Whether a trainer can ask it in mid-run: questions with choices, or requests of which some are to be refused."""
    if suite.lm_eval is not None:
        return suite.layer == "general"
    return suite.layer == "safety" and any(isinstance(i, CallItem) and i.expect == "refuse" for i in suite.items())


def protected_texts(product: Product) -> dict[str, str]:
    """``suite/item id`` -> text of every item that training must never see."""
    return {f"{suite.name}/{item.id}": item.text for suite in load_suites(product) for item in suite.items()}


def read_items(path: Path, kind: type[ItemT]) -> tuple[ItemT, ...]:
    items: dict[str, ItemT] = {}
    # Not splitlines(): a text may hold U+2028, which that takes for the end of a line.
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            item = kind.model_validate_json(line)
        except ValidationError as error:
            raise BadInput(f"{path}, line {number}: {error}") from error
        if item.id in items:
            raise BadInput(f"{path}, line {number}: the id {item.id} comes twice")
        items[item.id] = item
    return tuple(items.values())
