"""An item in words, for a person who judges an answer to it: all that was asked, and all that is right."""

import json
from collections.abc import Iterator

from evals.constraints import Constraint
from evals.passages import PassageItem
from evals.question import QuestionItem
from evals.suite import CallItem, ChoiceItem, CompletionItem, Item

_WORDS = {"reply": "an answer in words: no tool fits", "refuse": "words that turn it down"}


def asked(item: Item) -> str:
    """The turns, passages or choices, and the tools on offer."""
    return "\n".join(_asked(item))


def expected(item: Item) -> str:
    """Every field that an answer is checked against, a line each."""
    if isinstance(item, CallItem):
        return f"{item.tool} {_json(item.arguments or {})}" if item.expect == "call" else _WORDS[item.expect]
    if isinstance(item, ChoiceItem):
        return item.choices[item.answer]
    if isinstance(item, CompletionItem):
        return "one of: " + " | ".join(item.answers)
    return item.reference if isinstance(item, PassageItem) else "\n".join(_checked(item))


def _asked(item: Item) -> Iterator[str]:
    if isinstance(item, PassageItem):
        yield item.said()
    elif isinstance(item, ChoiceItem):
        yield item.text
        yield from (f"- {choice}" for choice in item.choices)
    elif isinstance(item, CompletionItem):
        yield item.text
    elif isinstance(item, CallItem):
        yield item.text
        yield _offer([(tool.name, [*tool.parameters]) for tool in item.offered()])
    else:
        yield from (f"{turn.role}: {turn.content}" for turn in item.before)
        yield f"user: {item.text}" if item.before else item.text
        if item.functions:
            yield _offer([(function.name, [*function.properties()]) for function in item.functions])


def _offer(tools: list[tuple[str, list[str]]]) -> str:
    return "tools on offer: " + ", ".join(f"{name}({', '.join(parameters)})" for name, parameters in tools)


def _checked(item: QuestionItem) -> Iterator[str]:
    if item.answers:
        yield "one of: " + " | ".join(item.answers)
    if item.pattern is not None:
        yield f"matches {item.pattern}"
    if item.json_subset is not None:
        yield f"JSON that holds {_json(item.json_subset)}"
    if item.number is not None:
        within = f" within {item.number.tolerance:g}" if item.number.tolerance > 1e-9 else ""
        units = f" in {', '.join(item.number.units)}" if item.number.units else ""
        yield f"the number {item.number.value:g}{within}{units}"
    yield from (f"to be judged: {criterion}" for criterion in item.rubric)
    for wanted in item.calls or ():
        for name, accepted in wanted.items():
            values = (f"{parameter} = {' or '.join(map(_value, each))}" for parameter, each in accepted.items())
            yield f"calls {name}({', '.join(values)})"
    if item.calls == ():
        yield "calls nothing"
    yield from map(_constraint, item.constraints)
    if item.refuse is not None:
        yield "is turned down" if item.refuse else "is answered, not turned down"
    yield from (f"does not give away {secret}" for secret in item.secrets)


def _constraint(each: Constraint) -> str:
    least = [] if each.least is None else [f"at least {each.least}"]
    most = [] if each.most is None else [f"at most {each.most}"]
    return " ".join([each.check, *map(_json, each.texts), *least, *most])


def _value(accepted: object) -> str:
    return "left out" if accepted == "" else _json(accepted)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
