"""The plan of a synthetic data set: what is asked for, how often, of which teacher and on which terms."""

import json
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from data_contracts.contract import spdx
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.records import ChatExample, ToolSpec
from evals.answers import call, parse_answer, words
from pipelines.recipes.product import ROOT
from pipelines.stages.data.item import Row
from pipelines.stages.data.plain import rows
from pipelines.stages.data.synthetic.sandbox import SANDBOXES

P = TypeVar("P", bound=Frozen)

NAME = r"^[a-z][a-z0-9-]{0,40}$"


class Teacher(Frozen):
    """The model that writes. ``training`` is what its ``terms`` (a licence or an address) say about training another
    model on its output."""

    model: str = Field(min_length=1)
    terms: str = Field(min_length=1)
    training: Literal["allowed", "unclear", "forbidden"]


class Example(Frozen):
    """A seed written into the plan: a question with its answer in words, or with the arguments of the intent's tool."""

    question: str = Field(min_length=1)
    answer: str | None = None
    arguments: dict[str, str] | None = None


class Intent(Frozen):
    """Something a user wants. With a ``tool`` the right answer is a call of it, else words. Its seeds stand here or in
    ``seed_file``, JSONL in the form that `synthesize` writes; a relative path starts at the repository."""

    name: str = Field(pattern=NAME)
    wants: str = Field(min_length=1)
    tool: str | None = None
    seeds: tuple[Example, ...] = ()
    seed_file: str | None = None

    @model_validator(mode="after")
    def _has_seeds(self) -> "Intent":
        if bool(self.seeds) == bool(self.seed_file):
            raise ValueError(f"intent {self.name}: give either seeds or seed_file")
        for seed in self.seeds:
            needed, other = (seed.arguments, seed.answer) if self.tool else (seed.answer, seed.arguments)
            if needed is None or other is not None:
                raise ValueError(f"intent {self.name}: a seed needs {'arguments' if self.tool else 'answer'} alone")
        return self


class Length(Frozen):
    """A bucket of questions by their number of words, both ends included."""

    name: str = Field(pattern=NAME)
    words: tuple[int, int]

    @field_validator("words")
    @classmethod
    def _a_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= value[0] <= value[1]:
            raise ValueError("is a range of words such as [3, 12]")
        return value


class Plan(Frozen):
    """``per_stratum`` requests are made for each intent, length and language (ISO 639-1 code -> its name in English).

    ``seed_depth`` says how often the seeds were generated themselves (0: people wrote them); a row of a seed file that
    states a greater ``synthetic_depth`` counts for more. ``licence`` is the one that the rows come under.
    ``chat_template`` is a file to send along to a server whose model has none of its own (vLLM takes it).
    """

    name: str = Field(pattern=NAME)
    task: str = Field(min_length=1)
    teacher: Teacher
    licence: str
    seed: int = Field(ge=0)
    temperature: float = Field(ge=0, le=2)
    max_tokens: int = Field(ge=16)
    per_stratum: int = Field(ge=1)
    languages: dict[str, str] = Field(min_length=1)
    lengths: tuple[Length, ...] = Field(min_length=1)
    intents: tuple[Intent, ...] = Field(min_length=1)
    seed_depth: int = Field(ge=0)
    tools: tuple[ToolSpec, ...] = ()
    sandbox: Literal["billing"] | None = None
    chat_template: str | None = None

    @field_validator("licence")
    @classmethod
    def _spdx(cls, value: str) -> str:
        if spdx(value) != value:
            raise ValueError(f"{value!r} is not an SPDX licence expression, e.g. CC-BY-4.0")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Plan":
        for kind, names in {
            "intents": [intent.name for intent in self.intents],
            "lengths": [length.name for length in self.lengths],
            "tools": [tool.name for tool in self.tools],
        }.items():
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}: a name stands twice")
        offered = {tool.name for tool in self.tools}
        for intent in self.intents:
            if intent.tool is not None and intent.tool not in offered:
                raise ValueError(f"intent {intent.name}: the tool {intent.tool} is not among the plan's tools")
        if self.sandbox and (unknown := offered - set(SANDBOXES[self.sandbox].tools)):
            raise ValueError(f"sandbox {self.sandbox} cannot execute {', '.join(sorted(unknown))}")
        return self

    def tool(self, name: str) -> ToolSpec:
        return next(tool for tool in self.tools if tool.name == name)


class Seed(Frozen):
    """``answer`` is what the assistant says: words, or the JSON of `evals.answers` where tools are on offer."""

    id: str
    question: str
    answer: str
    synthetic_depth: int


def load_plan(path: Path) -> Plan:
    return read_plan(path, Plan)


def read_plan(path: Path, kind: type[P]) -> P:
    """Read a plan of this kind. Raises `BadInput` that names file, field and fault."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"plan {path} cannot be read: {error}") from error
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, each['loc'])) or 'plan'}: {each['msg']}" for each in error.errors())
        raise BadInput(f"plan {path}: {'; '.join(faults)}") from error


def check_terms(teacher: Teacher) -> None:
    """Raises `Refused` unless the teacher's terms allow that a model learns from what it writes."""
    if teacher.training != "allowed":
        raise Refused(
            f"training on the output of {teacher.model} is {teacher.training} under its terms ({teacher.terms}): "
            "name a teacher whose terms allow it"
        )


def load_seeds(plan: Plan) -> dict[str, list[Seed]]:
    """The seeds of each intent. Raises `BadInput` for one that is no example, states no depth that the plan could
    count on, or is under another licence than the plan's rows."""
    seeds = {
        intent.name: _from_file(plan, intent) if intent.seed_file else _inline(plan, intent) for intent in plan.intents
    }
    for intent in plan.intents:
        for seed in seeds[intent.name]:
            if plan.tools and parse_answer(plan.tools, seed.answer) is None:
                raise BadInput(
                    f"plan {plan.name}, seed {seed.id}: its answer is no valid call or reply where the plan's tools "
                    "are on offer; correct the seed"
                )
    return seeds


def _inline(plan: Plan, intent: Intent) -> list[Seed]:
    def answer(example: Example) -> str:
        if intent.tool:
            return call(intent.tool, example.arguments or {})
        return words(example.answer or "") if plan.tools else example.answer or ""

    return [
        Seed(
            id=f"{plan.name}/{intent.name}/{number}",
            question=example.question,
            answer=answer(example),
            synthetic_depth=plan.seed_depth,
        )
        for number, example in enumerate(intent.seeds)
    ]


def _from_file(plan: Plan, intent: Intent) -> list[Seed]:
    path = ROOT / str(intent.seed_file)
    found = [_seed(plan, path, line, row) for line, row in rows(path) if row.get("intent", intent.name) == intent.name]
    if not found:
        raise BadInput(f"{path} has no row of the intent {intent.name}: add some, or name another seed_file")
    return found


def _seed(plan: Plan, path: Path, line: int, row: Row) -> Seed:
    where = f"{path}, line {line + 1}"
    depth, licence = row.get("synthetic_depth", plan.seed_depth), row.get("licence", plan.licence)
    if not isinstance(depth, int) or isinstance(depth, bool):
        raise BadInput(f"{where}: synthetic_depth is not a whole number; correct it")
    if licence != plan.licence:
        raise BadInput(
            f"{where}: the seed is under {json.dumps(licence)}, and the plan's rows would be under {plan.licence}; "
            "leave it out, or change the plan's licence"
        )
    try:
        chat = ChatExample.model_validate({key: row[key] for key in ("messages", "tools") if row.get(key)})
    except ValidationError as error:
        raise BadInput(f"{where}: is no conversation: {error.errors()[0]['msg']}") from error
    asked = [message.content for message in chat.messages if message.role == "user"]
    if not asked:
        raise BadInput(f"{where}: no message is the user's; a seed is a question with its answer")
    return Seed(
        id=str(row.get("id") or f"{path.stem}/{line}"),
        question=asked[-1],
        answer=chat.messages[-1].content,
        synthetic_depth=max(depth, plan.seed_depth),
    )
