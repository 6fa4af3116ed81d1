"""Verifiable rewards for `grpo`: what an answer is worth can be computed from its row. Deterministic, no network.

Each reward takes the tools on offer, the row's own answer and the text that the model gave, and returns 0 or 1.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from data_contracts.records import NO_TOOL, ChatExample, ToolSpec
from evals.answers import parse_answer
from pipelines.recipes.objectives import Reward


def json_valid(tools: Sequence[ToolSpec], expected: str, text: str) -> float:
    """One JSON object and nothing else."""
    return float(_object(text) is not None)


def tool_offered(tools: Sequence[ToolSpec], expected: str, text: str) -> float:
    """The tool that is named is on offer, or no tool is."""
    said = _object(text)
    return float(said is not None and said.get("tool") in [NO_TOOL, *(tool.name for tool in tools)])


def exact(tools: Sequence[ToolSpec], expected: str, text: str) -> float:
    """The row's call: the same tool, the same arguments, white space aside. Where the row's answer is in words, any
    valid answer in words: words cannot be verified."""
    wanted, given = parse_answer(tools, expected), parse_answer(tools, text)
    if wanted is None or given is None:
        return 0.0
    return float(wanted.tool == given.tool and _tidy(wanted.arguments) == _tidy(given.arguments))


REWARDS: dict[Reward, Callable[[Sequence[ToolSpec], str, str], float]] = {
    "json_valid": json_valid,
    "tool_offered": tool_offered,
    "exact": exact,
}


def is_verifiable(row: ChatExample) -> bool:
    """Whether the row's own answer would earn every reward: another row cannot say what is right."""
    return exact(row.tools, row.messages[-1].content, row.messages[-1].content) == 1


def as_trl(name: Reward) -> Callable[..., list[float]]:
    """The reward as TRL calls it: on a batch, with the columns of the rows (see `rows.prompt_columns`)."""
    reward = REWARDS[name]

    def rewarded(completions: list[str], offered: list[str], expected: list[str], **_: Any) -> list[float]:
        tools = [[ToolSpec.model_validate(tool) for tool in json.loads(each)] for each in offered]
        return [reward(*each) for each in zip(tools, expected, completions, strict=True)]

    rewarded.__name__ = name  # by which TRL reports it
    return rewarded


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _tidy(arguments: dict[str, str]) -> dict[str, str]:
    return {name: " ".join(value.split()) for name, value in arguments.items()}
