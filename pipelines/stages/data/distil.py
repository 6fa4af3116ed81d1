"""Sequence-level distillation (Kim and Rush, 2016, arXiv:1606.07947): a teacher's answers to given prompts become rows
that a student learns like any others.

Every prompt ends as a row or with a reason. Which rows come out depends on plan, prompts and answers alone.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, field_validator

from data_contracts.contract import spdx
from data_contracts.digests import Digest, hex_of, sha256_json
from data_contracts.errors import BadInput, Refused
from data_contracts.frozen import Frozen
from data_contracts.records import ChatExample, Message, ToolSpec
from evals.answers import answer_schema, parse_answer
from pipelines.stages.data.item import Row
from pipelines.stages.data.near import near_pairs, words
from pipelines.stages.data.plain import Report, rows
from pipelines.stages.data.synthesize import Endpoint, Synthesis
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from pipelines.stages.data.synthetic.plan import NAME, Teacher, read_plan
from pipelines.stages.data.synthetic.requests import read_template
from pipelines.stages.data.synthetic.validate import Completion, Fault

_NUMBER = re.compile(r"\d+")
_OWN = frozenset({"id", "messages", "tools", "synthetic", "synthetic_depth", "teacher", "plan", "prompt", "licence"})


class DistillationPlan(Frozen):
    """``licence`` is the one that the rows come under; prompts that state another one are an error. ``keep`` names
    fields of a prompt's row that the answer's row keeps: what its contract needs, such as the person a prompt is
    about, so that erasure reaches the answer. Of questions whose word trigrams are ``alike`` (Jaccard, numbers apart)
    one is asked. ``chat_template`` is a file to render prompts with, where the teacher has no template of its own."""

    name: str = Field(pattern=NAME)
    teacher: Teacher
    licence: str
    seed: int = Field(ge=0)
    temperature: float = Field(ge=0, le=2)
    max_tokens: int = Field(ge=16)
    alike: float = Field(gt=0, le=1)
    keep: tuple[str, ...] = ()
    chat_template: str | None = None

    @field_validator("licence")
    @classmethod
    def _spdx(cls, value: str) -> str:
        if spdx(value) != value:
            raise ValueError(f"{value!r} is not an SPDX licence expression, e.g. CC-BY-4.0")
        return value

    @field_validator("keep")
    @classmethod
    def _not_ours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := sorted(_OWN & set(value)):
            raise ValueError(f"{', '.join(taken)}: is written for each row anyway; leave it out")
        return value


class Prompt(NamedTuple):
    """A conversation that waits for its answer, from zero-based ``line`` of a file; ``row`` is the whole row."""

    line: int
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    row: Row

    @property
    def question(self) -> str:
        return self.messages[-1].content


def load_distillation(path: Path) -> DistillationPlan:
    return read_plan(path, DistillationPlan)


def read_prompts(path: Path, plan: DistillationPlan) -> list[Prompt]:
    """Rows of ``messages`` (and ``tools``); an answer at the end is left out. Raises `BadInput` with file and line."""
    return [_prompt(path, line, row, plan) for line, row in rows(path)]


def _prompt(path: Path, line: int, row: Row, plan: DistillationPlan) -> Prompt:
    where = f"{path}, line {line + 1}"
    given = row.get("messages")
    if not isinstance(given, list) or not given:
        raise BadInput(f"{where}: has no messages: each row is a conversation")
    asked = given[:-1] if isinstance(given[-1], dict) and given[-1].get("role") == "assistant" else given
    blank = {"role": "assistant", "content": "?"}
    try:
        chat = ChatExample.model_validate({"messages": [*asked, blank], "tools": row.get("tools") or ()})
    except ValidationError as error:
        raise BadInput(f"{where}: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}") from error
    if chat.messages[-2].role != "user":
        raise BadInput(f"{where}: its last message before the answer is not the user's")
    if row.get("licence", plan.licence) != plan.licence:
        raise BadInput(
            f"{where}: is under {row['licence']}, the plan's rows under {plan.licence}: use one licence a plan"
        )
    if missing := [name for name in plan.keep if name not in row]:
        raise BadInput(f"{where}: has no field {missing[0]}, which the plan keeps; add it, or take it out of keep")
    return Prompt(line, chat.messages[:-1], chat.tools, row)


def check_licence(plan: DistillationPlan, found: str) -> None:
    """Raises `Refused` unless a teacher's own files are under the terms that the plan states of it."""
    if found.casefold() != plan.teacher.terms.casefold():
        raise Refused(
            f"plan {plan.name}: says that {plan.teacher.model} is under {plan.teacher.terms}, its own files say "
            f"{found}: read those terms and state them, or name another teacher"
        )


def blocked(plan: DistillationPlan, prompts: Sequence[Prompt]) -> Synthesis | None:
    """When the teacher's terms do not allow it: no row, and for each prompt that as the reason."""
    if plan.teacher.training == "allowed":
        return None
    told = f"training on the output of {plan.teacher.model} is {plan.teacher.training} ({plan.teacher.terms})"
    return _summed_up(plan, prompts, [Fault("vendor-terms", told) for _ in prompts])


def distil(
    plan: DistillationPlan,
    prompts: Sequence[Prompt],
    model: str,
    endpoint: Endpoint,
    answers: AnswerFile,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Synthesis:
    """Ask what was not answered yet, then check. ``model`` is the name by which the endpoint knows the teacher; which
    must be allowed to teach (`blocked`)."""
    repeats = _repeats(plan, prompts)
    template = {"chat_template": read_template(plan.chat_template)} if plan.chat_template else {}
    bodies = {n: template | _body(plan, prompt, model) for n, prompt in enumerate(prompts) if n not in repeats}
    digests = {n: sha256_json(body) for n, body in bodies.items()}
    pending = {digests[n]: body for n, body in bodies.items() if digests[n] not in answers.known}
    left = set(pending)

    def answered(request: Digest, completion: Completion) -> None:
        answers.add(request, completion)
        left.discard(request)
        progress(len(bodies) - len(left), len(bodies))

    failed = endpoint.ask(pending, answered)
    judged: list[str | Fault] = []
    for number, prompt in enumerate(prompts):
        if number in repeats:
            judged.append(Fault("near-duplicate", "asks nearly what another one asks", _id(prompts[repeats[number]])))
        elif digests[number] not in answers.known:
            judged.append(Fault("no-answer", failed[digests[number]]))
        else:
            judged.append(_answer(plan, prompt, answers.known[digests[number]]))
    return _summed_up(plan, prompts, judged)


def _repeats(plan: DistillationPlan, prompts: Sequence[Prompt]) -> dict[int, int]:
    """Prompt -> the earlier one that it repeats and that is asked."""
    found: dict[int, int] = {}
    for left, right in near_pairs([_NUMBER.sub("0", prompt.question) for prompt in prompts], plan.alike):
        if left not in found and right not in found:
            found[right] = left
    return found


def _body(plan: DistillationPlan, prompt: Prompt, model: str) -> dict[str, Any]:
    """The chat completion to ask for. Tools are told in words and held to by a schema: any server understands it."""
    messages = [message.model_dump() for message in prompt.messages]
    body: dict[str, Any] = {"model": model, "temperature": plan.temperature, "max_tokens": plan.max_tokens}
    if prompt.tools:
        messages = [{"role": "system", "content": _offer(prompt.tools)}, *messages]
        schema = answer_schema(prompt.tools, 4 * plan.max_tokens)
        named = {"name": "answer", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    drawn = sha256_json([plan.seed, messages])
    return body | {"messages": messages, "seed": int(hex_of(drawn)[:7], 16)}


def _offer(tools: Sequence[ToolSpec]) -> str:
    lines = [f"- {tool.name}({', '.join(tool.parameters)}): {tool.description}" for tool in tools]
    call, reply = '{"tool": NAME, "arguments": {...}}', '{"tool": "none", "reply": TEXT}'
    return "\n".join(["You have these tools:", *lines, f"Answer with one JSON object: {call}, or in words {reply}."])


def _answer(plan: DistillationPlan, prompt: Prompt, completion: Completion) -> str | Fault:
    """What the student is to say."""
    text = completion.text.strip()
    if completion.finish == "length":
        return Fault("cut-off", f"the answer did not end within {plan.max_tokens} tokens; raise max_tokens")
    if completion.finish != "stop":
        return Fault("withheld", "the teacher declined to answer")
    if not words(text):
        return Fault("empty", "the answer holds no word")
    if prompt.tools and parse_answer(prompt.tools, text) is None:
        return Fault("schema", "the answer is no valid call or reply for the tools on offer")
    if words(text) == words(prompt.question):
        return Fault("echo", "the answer repeats the question")
    return text


def _summed_up(plan: DistillationPlan, prompts: Sequence[Prompt], judged: Sequence[str | Fault]) -> Synthesis:
    report = Report(rows_in=len(prompts))
    made: list[Row] = []
    for prompt, each in zip(prompts, judged, strict=True):
        if isinstance(each, Fault):
            report.drop(prompt.line, f"{each.code}: {each.reason}", each.match)
        else:
            made.append(_row(plan, prompt, each))
    counts = Counter(each.code for each in judged if isinstance(each, Fault))
    facts = {
        "plan": plan.digest,
        "teacher": plan.teacher.payload(),
        "yields": {"row": len(made)} | dict(counts.most_common()),
        "depths": dict(sorted(Counter(str(row["synthetic_depth"]) for row in made).items())),
    }
    return Synthesis(made, report, facts)


def _id(prompt: Prompt) -> str:
    return str(prompt.row.get("id", prompt.line))


def _row(plan: DistillationPlan, prompt: Prompt, answer: str) -> Row:
    """A conversation with all that its contract wants to know of where it came from."""
    messages = [message.model_dump() for message in prompt.messages]
    name = hex_of(sha256_json([plan.digest, messages, [tool.payload() for tool in prompt.tools]]))[:16]
    return {
        "consent": "synthetic",
        **{field: prompt.row[field] for field in plan.keep},
        "id": f"distilled-{name}",
        "messages": [*messages, {"role": "assistant", "content": answer}],
        "tools": [tool.payload() for tool in prompt.tools],
        "synthetic": True,
        "synthetic_depth": 1 + int(prompt.row.get("synthetic_depth", 0)),
        "teacher": plan.teacher.model,
        "plan": plan.digest,
        "prompt": _id(prompt),
        "licence": plan.licence,
    }
