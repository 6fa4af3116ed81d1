"""Suites: what is asked, in which layer, on which terms. One YAML each, its items as JSON lines beside it.

Items are of five kinds: a customer's message with the product's tools on offer and the right behaviour (`CallItem`), a
question that is answered in free text or in calls (`QuestionItem`), one that is answered from passages (`PassageItem`),
and two that lm-eval asks on the bare text: one with choices, scored by likelihood (`ChoiceItem`), and one whose text
goes on (`CompletionItem`).
"""

import json
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, JsonValue, ValidationError, model_validator

from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.records import ToolSpec
from evals.document import Document
from evals.jailbreaks import Transform, transformed
from evals.passages import PassageItem
from evals.policy import GatePolicy
from evals.question import QuestionItem
from evals.ragas_metrics import JUDGE_FREE, JUDGED
from pipelines.recipes.product import ROOT, Product

TOOLS = ROOT / "evals" / "goldens" / "tools.jsonl"

RUBRIC = "rubric"
"""The metric of question suites that asks a judge model."""
Layer = Literal["intrinsic", "product", "safety", "general", "rag"]


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

    def turns(self) -> list[dict[str, str]]:
        """The messages to send."""
        return [{"role": "user", "content": self.text}]

    def offered(self) -> tuple[ToolSpec, ...]:
        catalogue = tool_catalogue()
        if unknown := [name for name in self.tools if name not in catalogue]:
            raise ValueError(f"{self.id}: no tool {', '.join(unknown)} in {TOOLS.name}")
        return tuple(catalogue[name] for name in self.tools)


class ChoiceItem(Frozen):
    """A question or an unfinished sentence; ``answer`` is the index of the right one of its choices."""

    id: str
    cluster: str
    text: str
    choices: tuple[str, ...] = Field(min_length=2)
    answer: int = Field(ge=0)

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> "ChoiceItem":
        if self.answer >= len(self.choices):
            raise ValueError(f"answer {self.answer} is none of the {len(self.choices)} choices: count from 0")
        return self


class CompletionItem(Frozen):
    """A text that a model is to go on with; any of ``answers`` will do."""

    id: str
    cluster: str
    text: str = Field(min_length=1)
    answers: tuple[str, ...] = Field(min_length=1)


ChatItem = CallItem | QuestionItem | PassageItem
"""What is asked as a conversation."""
Item = ChatItem | ChoiceItem | CompletionItem
ItemT = TypeVar("ItemT", CallItem, ChoiceItem, CompletionItem, QuestionItem, PassageItem, Document)
Items = tuple[Item, ...]


class Suite(Frozen):
    """``headline`` is the metric that stands for the suite; ``margin`` the greatest loss on it that is no regression:
    no policy may allow more. ``data`` lies at this path in the repository, or beside the suite's file; ``data_digest``
    is the sha256 of its bytes, so that nobody changes what was asked unnoticed.

    ``lm_eval`` is a task in lm-eval's own format, for suites that lm-eval runs; the data set is filled in when it runs.
    The items of other suites are of the kind ``asks``; each ``transforms`` (see `evals.jailbreaks`) asks all of a
    question suite's items once. ``free`` asks without the JSON schema that holds the answers in serving: for what a
    model does by itself.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    layer: Layer
    description: str
    unit: str
    cluster: str
    direction: Literal["higher-is-better"]
    margin: float | None = Field(default=None, ge=0, le=1)
    licence: str
    origin: Literal["hand-written", "generated", "published"]
    data: str
    data_digest: Digest | None = None
    asks: Literal["product-calls", "questions", "passages"] = "product-calls"
    transforms: tuple[Transform, ...] = ()
    free: bool = False
    metrics: tuple[str, ...] = Field(min_length=1)
    headline: str
    lm_eval: dict[str, JsonValue] | None = None

    @model_validator(mode="after")
    def _headline_is_measured(self) -> "Suite":
        if self.headline not in self.metrics:
            raise ValueError(
                f"the headline {self.headline} is none of the metrics: name one of {', '.join(self.metrics)}"
            )
        return self

    @model_validator(mode="after")
    def _transforms_questions(self) -> "Suite":
        if self.transforms and (self.asks != "questions" or self.lm_eval is not None):
            raise ValueError("transforms change questions: set `asks: questions`, or take them out")
        return self

    @model_validator(mode="after")
    def _is_held_otherwise(self) -> "Suite":
        if self.free and (self.asks != "product-calls" or self.lm_eval is not None):
            raise ValueError("free: no schema holds these answers anyway; it is for `asks: product-calls`")
        return self

    @model_validator(mode="after")
    def _lm_eval_scores_each_item_once(self) -> "Suite":
        if self.lm_eval is not None and self._output not in ("multiple_choice", "generate_until"):
            raise ValueError(f"lm_eval: no items fit output_type {self._output}: use multiple_choice or generate_until")
        if self.lm_eval is not None and len(_listed(self.lm_eval, "filter_list")) > 1:
            raise ValueError("lm_eval: each filter of filter_list gives scores of its own: keep one")
        return self

    @property
    def _output(self) -> str:
        return str((self.lm_eval or {}).get("output_type", "generate_until"))  # lm-eval's own default

    @property
    def by_choice(self) -> bool:
        """Whether lm-eval compares the likelihood of choices."""
        return self.lm_eval is not None and self._output == "multiple_choice"

    @property
    def step(self) -> Layer:
        """The step of the line that asks it: layers without one of their own go with the product's."""
        return self.layer if self.layer in ("safety", "general") else "product"

    @property
    def judged(self) -> tuple[str, ...]:
        """The metrics that ask a judge model."""
        asking: dict[str, set[str]] = {"questions": {RUBRIC}, "passages": set(JUDGED)}
        judged = asking.get(self.asks, set()) if self.lm_eval is None else set()
        return tuple(metric for metric in self.metrics if metric in judged)

    def data_path(self) -> Path:
        return ROOT / self.data

    def items(self) -> Items:
        """What is asked, in file order. Raises `BadInput` for a row that does not fit and an id that comes twice."""
        if self.transforms:
            return transformed(read_items(self.data_path(), QuestionItem), self.transforms)
        return self.written_items()

    def written_items(self) -> Items:
        """The items as they stand in the file, before any transform."""
        path = self.data_path()
        if self.lm_eval is not None:
            return read_items(path, ChoiceItem) if self.by_choice else read_items(path, CompletionItem)
        if self.asks == "passages":
            return read_items(path, PassageItem)
        return read_items(path, CallItem) if self.asks == "product-calls" else read_items(path, QuestionItem)

    def check_policy(self, policy: GatePolicy) -> None:
        """Raises `Refused` where a policy takes a loss on the headline for none that the suite takes for one."""
        for each in policy.criteria:
            on_headline = (each.suite, each.metric, each.kind) == (self.name, self.headline, "non-inferiority")
            if self.margin is not None and on_headline and each.margin > self.margin:
                raise Refused(
                    f"criterion {each.name} of policy {policy.name} allows a loss of {each.margin:g} on {self.name}, "
                    f"whose margin is {self.margin:g}: lower the criterion's"
                )

    def content_digest(self) -> Digest:
        """Names the question paper: this file's fields, the bytes of the items and of the tool catalogue. Where the
        items lie is no part of it."""
        terms = self.model_dump(mode="json", exclude={"data"})
        return sha256_json({"suite": terms, "data": sha256_file(self.data_path()), "tools": sha256_file(TOOLS)})


@cache
def tool_catalogue() -> dict[str, ToolSpec]:
    rows = (json.loads(line) for line in TOOLS.read_text().splitlines())
    return {row["name"]: ToolSpec.model_validate(row) for row in rows}


def load_suite(path: Path) -> Suite:
    """Raises `BadInput` that names the file, the field and what to do."""
    try:
        suite = Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise BadInput(f"{path}, {_first_fault(error, Suite)}") from error
    if not suite.data_path().is_file():
        beside = path.resolve().parent / suite.data
        if not beside.is_file():
            raise BadInput(f"{path}, field data: there is no file {suite.data_path()}, nor {beside}: correct the path")
        suite = suite.model_copy(update={"data": str(beside)})
    found = sha256_file(suite.data_path())
    if suite.data_digest not in (None, found):
        raise BadInput(
            f"{path}, field data_digest: the items in {suite.data_path()} have digest {found}: look at what changed, "
            "and write this digest if it is meant"
        )
    known = _known_metrics(suite)
    if unknown := [metric for metric in suite.metrics if metric not in known]:
        raise BadInput(f"{path}, field metrics: nothing measures {', '.join(unknown)}: use {', '.join(sorted(known))}")
    return suite


def _known_metrics(suite: Suite) -> set[str]:
    if suite.lm_eval is not None:
        return {str(each.get("metric")) for each in _listed(suite.lm_eval, "metric_list") if isinstance(each, dict)}
    from evals import question_scorers, scorers  # scorers import items from here

    if suite.asks == "product-calls":
        return set(scorers.SCORERS)
    if suite.asks == "passages":
        return {*JUDGE_FREE, *JUDGED}
    return {*question_scorers.SCORERS, *question_scorers.DETECTED, RUBRIC}


def _listed(task: dict[str, JsonValue], key: str) -> list[JsonValue]:
    listed = task.get(key)
    return listed if isinstance(listed, list) else []


def load_suites(product: Product) -> tuple[Suite, ...]:
    return tuple(load_suite(product.file("suite", name)) for name in product.suites)


def is_probe(suite: Suite) -> bool:
    """Whether a trainer can ask it in mid-run: questions with choices, or requests of which some are to be refused."""
    if suite.lm_eval is not None:
        return suite.by_choice and suite.layer == "general"
    return suite.layer == "safety" and any(isinstance(i, CallItem) and i.expect == "refuse" for i in suite.items())


def protected_texts(product: Product) -> dict[str, str]:
    """``suite/item id`` -> text of every item that training must never see: of the product's suites and its desk's."""
    names = dict.fromkeys([*product.suites, *(product.desk.asked if product.desk else ())])
    suites = [load_suite(product.file("suite", name)) for name in names]
    return {f"{suite.name}/{item.id}": item.text for suite in suites for item in suite.written_items()}


def read_items(path: Path, kind: type[ItemT]) -> tuple[ItemT, ...]:
    """Raises `BadInput` that names file, line and field, and what to do; for a file without any item too."""
    items: dict[str, ItemT] = {}
    # Not splitlines(): a text may hold U+2028, which that takes for the end of a line.
    for number, line in enumerate(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1):
        try:
            item = kind.model_validate_json(line)
        except ValidationError as error:
            raise BadInput(f"{path}, line {number}, {_first_fault(error, kind)}") from error
        if item.id in items:
            raise BadInput(f"{path}, line {number}: the id {item.id} comes twice: give each item its own")
        items[item.id] = item
    return tuple(items.values())


def _first_fault(error: ValidationError, kind: type[Frozen]) -> str:
    """Field, what is wrong with it, and the remedy."""
    fault = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(map(str, fault["loc"])) or "the whole"
    remedy = {
        "missing": "add it",
        "extra_forbidden": f"take it out or correct its name; the fields are {', '.join(kind.model_fields)}",
        "json_invalid": "write one JSON object a line",
        "value_error": "",
    }.get(fault["type"], "correct it")
    said = fault["msg"].removeprefix("Value error, ")
    return f"field {field}: {said}" + (f": {remedy}" if remedy else "")
