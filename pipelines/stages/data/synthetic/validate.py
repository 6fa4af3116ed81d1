"""What a teacher's answer must keep to become a row. Each check says what is wrong, and never quotes the answer."""

import json
import re
from typing import NamedTuple

from evals import answers
from evals.answers import Answer, parse_answer
from pipelines.stages.data.near import words
from pipelines.stages.data.protocols import LanguageDetector
from pipelines.stages.data.synthetic.arithmetic import wrong_sums
from pipelines.stages.data.synthetic.plan import Plan
from pipelines.stages.data.synthetic.requests import Request
from pipelines.stages.data.synthetic.sandbox import SANDBOXES, execute

_UNFIT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that no text may hold: control characters, halves of characters."""


class Completion(NamedTuple):
    """What an endpoint answered, and why it stopped there (``stop``, ``length``, ...)."""

    text: str
    finish: str


class Fault(NamedTuple):
    """``code`` is a short word for counts, ``reason`` a sentence for people, ``match`` another row's id."""

    code: str
    reason: str
    match: str = ""


class Draft(NamedTuple):
    """``answer`` is what the assistant says in a row; ``said`` its words, if it answers in words; else ``tool`` is
    called with ``arguments``."""

    question: str
    answer: str
    said: str
    tool: str | None
    arguments: dict[str, str]


def read(plan: Plan, request: Request, completion: Completion) -> Draft | Fault:
    """The question and answer in a completion. The schema is checked here too: not every endpoint holds to it."""
    if completion.finish == "length":
        return Fault("cut-off", f"the answer did not end within {plan.max_tokens} tokens; raise max_tokens")
    if completion.finish != "stop":
        return Fault("withheld", "the teacher declined to answer")
    try:
        # vLLM's grammar lets raw control characters into texts of bounded length: they are told apart below.
        row = json.loads(completion.text, strict=False)
    except (ValueError, RecursionError):
        return Fault("not-json", "the answer is not JSON; does the endpoint support response_format json_schema?")
    match row:
        case {"question": str(question), "answer": str(said), **more} if not (plan.tools or more):
            draft = Draft(question.strip(), said.strip(), said, None, {})
        case {"question": str(question), "answer": dict(answer), **more} if plan.tools and not more:
            parsed = parse_answer(plan.tools, json.dumps(answer))
            if parsed is None:
                return Fault("schema", "the answer is no valid call or reply for the tools on offer")
            draft = Draft(question.strip(), _written(plan, parsed), parsed.reply or "", parsed.tool, parsed.arguments)
        case _:
            return Fault("schema", "the answer is not an object of question and answer in their declared types")
    if not words(draft.question) or not (draft.tool or words(draft.said)):
        return Fault("empty", "the question or the answer holds no word")
    if any(_UNFIT.search(text) for text in (draft.question, draft.said, *draft.arguments.values())):
        return Fault("schema", "the answer holds characters that no text may hold")
    return draft


def _written(plan: Plan, answer: Answer) -> str:
    """An answer as every row writes it: the arguments in the order of their declaration."""
    if answer.tool is None:
        return answers.words(answer.reply or "")
    return answers.call(answer.tool, {name: answer.arguments[name] for name in plan.tool(answer.tool).parameters})


def fault(plan: Plan, request: Request, draft: Draft, detector: LanguageDetector) -> Fault | None:
    """The first thing that is wrong with a draft by itself: its stratum, its call, its sums."""
    return (
        _echo(request, draft)
        or _length(request, draft)
        or _language(request, draft, detector)
        or _choice(request, draft)
        or _call(plan, draft)
        or _sums(draft)
    )


def _echo(request: Request, draft: Draft) -> Fault | None:
    if words(draft.question) in (words(draft.said), words(request.intent.wants)):
        return Fault("echo", "the question repeats the instruction, or the answer the question")
    return None


def _length(request: Request, draft: Draft) -> Fault | None:
    few, many = request.length.words
    if few <= len(draft.question.split()) <= many:
        return None
    return Fault("length", f"the question does not have {few} to {many} words")


def _language(request: Request, draft: Draft, detector: LanguageDetector) -> Fault | None:
    for text in (draft.question, draft.said):
        if text and (detector.language(text) or request.language) != request.language:
            return Fault("language", f"a text is not in the language {request.language}")
    return None


def _choice(request: Request, draft: Draft) -> Fault | None:
    if draft.tool == request.intent.tool:
        return None
    return Fault(
        "tool-choice", f"the intent needs {f'a call of {request.intent.tool}' if request.intent.tool else 'words'}"
    )


def _call(plan: Plan, draft: Draft) -> Fault | None:
    if draft.tool is None:
        return None
    asked = draft.question.casefold()
    for name, value in draft.arguments.items():
        # Numbers and identifiers are copied; a month or a plan may be put in other words.
        if re.search(r"[0-9]", value) and value.casefold() not in asked:
            return Fault("invented-argument", f"the question does not hold the value of {name}")
    if plan.sandbox and (why := execute(SANDBOXES[plan.sandbox], draft.tool, draft.arguments)):
        return Fault("tool-failure", f"{draft.tool}: {why}")
    return None


def _sums(draft: Draft) -> Fault | None:
    wrong = wrong_sums(draft.said)
    return Fault("arithmetic", f"{wrong} of the sums in the answer do not come out") if wrong else None
