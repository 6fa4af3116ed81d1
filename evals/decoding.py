"""How an answer is asked for. The tuned model is asked as it will be served; the base gets what a fair rival deserves:
worked shots and a JSON schema that lets it write nothing but an answer in the right form."""

import json
from typing import Any, Literal

from pydantic import JsonValue

from data_contracts.digests import Digest, sha256_file
from data_contracts.frozen import Frozen
from data_contracts.records import ToolSpec
from evals.suite import CallItem, read_items
from pipelines.recipes.product import ROOT, Product

SHOTS = ROOT / "evals" / "goldens" / "shots.jsonl"
SHOT_REPLY = "I can only help with billing."
SEED = 7
_REPLY_CHARACTERS = 80


class Decoding(Frozen):
    """Greedy decoding. ``shots`` names the file of worked examples, ``reply_characters`` bounds the schema's reply."""

    style: Literal["as-served", "few-shot-json-schema"]
    max_tokens: int
    temperature: float = 0.0
    seed: int = SEED
    shots: Digest | None = None
    reply_characters: int | None = None

    def request(self, name: str, template: str, item: CallItem) -> dict[str, Any]:
        """Body of a chat completion that the model ``name`` answers, with the product's template and tools."""
        rival = self.style == "few-shot-json-schema"
        body: dict[str, Any] = {
            "model": name,
            "messages": [*(few_shots(item.tools) if rival else []), {"role": "user", "content": item.text}],
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "chat_template": template,
            "chat_template_kwargs": {"assay_tools": [tool.model_dump() for tool in item.offered()]},
        }
        if rival:
            body["structured_outputs"] = {
                "json": answer_schema(item.offered(), self.reply_characters or _REPLY_CHARACTERS),
                "disable_any_whitespace": True,
            }
        return body


def as_served(product: Product) -> Decoding:
    return Decoding(style="as-served", max_tokens=product.serving.max_tokens)


def fair_rival(product: Product) -> Decoding:
    return Decoding(
        style="few-shot-json-schema",
        max_tokens=product.serving.max_tokens,
        shots=sha256_file(SHOTS),
        reply_characters=_REPLY_CHARACTERS,
    )


def few_shots(tools: tuple[str, ...]) -> list[dict[str, str]]:
    """Worked examples as turns of the conversation: one that is answered in words, then one for each of the first
    three tools on offer."""
    words = [shot for shot in read_items(SHOTS, CallItem) if shot.expect != "call"]
    calls = {shot.tool: shot for shot in read_items(SHOTS, CallItem)}
    turns: list[dict[str, str]] = []
    for shot in [*words, *(calls[tool] for tool in tools[:3])]:
        answer = {"tool": shot.tool, "arguments": shot.arguments} if shot.expect == "call" else {"reply": SHOT_REPLY}
        turns += [{"role": "user", "content": shot.text}, {"role": "assistant", "content": json.dumps(answer)}]
    return turns


def answer_schema(tools: tuple[ToolSpec, ...], reply_characters: int) -> dict[str, JsonValue]:
    """JSON schema of every valid answer when these tools are on offer."""
    calls: list[JsonValue] = [
        _closed({"tool": {"const": tool.name}, "arguments": _closed(dict.fromkeys(tool.parameters, _TEXT))})
        for tool in tools
    ]
    reply = _closed({"reply": {"type": "string", "minLength": 1, "maxLength": reply_characters}})
    return {"anyOf": [*calls, reply]}


_TEXT: dict[str, JsonValue] = {"type": "string", "minLength": 1, "maxLength": 60}


def _closed(properties: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
