"""What the teacher is asked: one chat completion for each row, under a JSON schema that only a row fits."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import JsonValue

from data_contracts.digests import Digest, hex_of, sha256_json
from data_contracts.errors import BadInput
from evals.answers import answer_schema
from pipelines.recipes.product import ROOT
from pipelines.stages.data.synthetic.plan import Intent, Length, Plan, Seed
from pipelines.stages.data.synthetic.sandbox import SANDBOXES

SHOWN = 3
"""Seeds that a request shows, at most."""
_ANSWER_CHARACTERS = 600
_CHARACTERS_OF_A_WORD = 16


@dataclass(frozen=True)
class Request:
    """``body`` is the chat completion to ask for; its digest names the request."""

    intent: Intent
    length: Length
    language: str
    seeds: tuple[Seed, ...]
    body: dict[str, Any]

    @cached_property
    def digest(self) -> Digest:
        return sha256_json(self.body)

    @property
    def stratum(self) -> str:
        return f"{self.intent.name}/{self.length.name}/{self.language}"


def requests(plan: Plan, seeds: Mapping[str, Sequence[Seed]], model: str) -> Iterator[Request]:
    """``per_stratum`` requests for each intent, length and language. Plan, seeds and ``model`` fix every byte."""
    template = {"chat_template": read_template(plan.chat_template)} if plan.chat_template else {}
    for intent in plan.intents:
        for length in plan.lengths:
            for language in plan.languages:
                for number in range(plan.per_stratum):
                    drawn = sha256_json([plan.seed, intent.name, length.name, language, number])
                    chance = random.Random(drawn)
                    pool = seeds[intent.name]
                    shown = tuple(chance.sample(pool, min(SHOWN, len(pool))))
                    told = _instruction(plan, intent, length, language, shown, chance)
                    body = template | {
                        "model": model,
                        "messages": [{"role": "user", "content": told}],
                        "temperature": plan.temperature,
                        "max_tokens": plan.max_tokens,
                        "seed": int(hex_of(drawn)[:7], 16),
                        "response_format": {
                            "type": "json_schema",
                            "json_schema": {"name": "row", "strict": True, "schema": row_schema(plan, intent, length)},
                        },
                    }
                    yield Request(intent, length, language, shown, body)


def read_template(name: str) -> str:
    """A chat template by a path that starts at the repository."""
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"chat template {name} cannot be read: {error}") from error


def row_schema(plan: Plan, intent: Intent, length: Length) -> dict[str, JsonValue]:
    """JSON schema of ``{"question": ..., "answer": ...}``: the answer is a call of the intent's tool or words."""
    answer: JsonValue = {"type": "string", "minLength": 1, "maxLength": _ANSWER_CHARACTERS}
    if plan.tools:
        answer = answer_schema([plan.tool(intent.tool)] if intent.tool else [], _ANSWER_CHARACTERS)
    most = length.words[1] * _CHARACTERS_OF_A_WORD
    return {
        "type": "object",
        "properties": {"question": {"type": "string", "minLength": 1, "maxLength": most}, "answer": answer},
        "required": ["question", "answer"],
        "additionalProperties": False,
    }


def _instruction(
    plan: Plan, intent: Intent, length: Length, language: str, shown: Sequence[Seed], chance: random.Random
) -> str:
    few, many = length.words
    lines = [
        f"Write one new training example for {plan.task}.",
        f"{intent.wants}",
        f"Write it in {plan.languages[language]}. The question has {few} to {many} words.",
    ]
    if plan.tools:
        lines.append("The assistant has these tools:")
        lines += [f"- {tool.name}({', '.join(tool.parameters)}): {tool.description}" for tool in plan.tools]
        lines.append(f"The right answer is a call of {intent.tool}." if intent.tool else "The right answer is words.")
    if plan.sandbox and intent.tool:
        lines.append(f"Use this fact, as it is written: {SANDBOXES[plan.sandbox].fact(intent.tool, chance)}.")
    lines.append("Do not repeat these examples:")
    lines += [json.dumps({"question": s.question, "answer": _shown(plan, s)}, ensure_ascii=False) for s in shown]
    lines.append("Answer with one JSON object of the same form.")
    return "\n".join(lines)


def _shown(plan: Plan, seed: Seed) -> JsonValue:
    answer: JsonValue = json.loads(seed.answer) if plan.tools else seed.answer
    return answer
