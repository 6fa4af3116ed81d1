"""What passes through the gateway: an answer with its provenance added, and the facts kept of it. No text is kept."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_contracts.records import NO_TOOL


@dataclass
class Answered:
    """What a trace needs of an answer, gathered as it passes. ``offered``: names of the request's tools. ``form``: it
    is held to a form, JSON, of which a half is no answer; ``cut``: it did not end by itself. ``first``: when a stream's
    first text passed, by the monotonic clock."""

    offered: Sequence[str]
    form: bool = False
    cut: bool = False
    text: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = False
    first: float | None = None

    @property
    def half(self) -> bool:
        return self.form and self.cut

    def usage(self, usage: dict[str, Any] | None) -> None:
        self.prompt_tokens = (usage or {}).get("prompt_tokens") or self.prompt_tokens
        self.completion_tokens = (usage or {}).get("completion_tokens") or self.completion_tokens

    @property
    def whole(self) -> str:
        return "".join(self.text)

    def words(self) -> str:
        """What is said: the reply where it is an object with one."""
        text = self.whole
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return str(value.get("reply") or "") if isinstance(value, dict) and "tool" in value else text

    def judged(self) -> tuple[bool, str | None]:
        """Whether the answer is a JSON object, and the tool it calls: none where it is words, ``other`` where the name
        was not offered."""
        try:
            value = json.loads(self.whole)
        except ValueError:
            return False, None
        if not isinstance(value, dict):
            return False, None
        if value.get("tool", NO_TOOL) == NO_TOOL:
            return True, None
        return True, value["tool"] if value["tool"] in self.offered else "other"


def whole(answer: dict[str, Any], product: str, provenance: dict[str, str | None], seen: Answered) -> dict[str, Any]:
    """vLLM's answer as the client gets it."""
    seen.cut = answer["choices"][0].get("finish_reason") == "length"
    seen.text.append(answer["choices"][0]["message"].get("content") or "")
    seen.usage(answer.get("usage"))
    seen.finished = True
    return answer | {"model": product, "assay": provenance}


async def streamed(
    lines: AsyncIterator[str], product: str, provenance: dict[str, str | None], wants_usage: bool, seen: Answered
) -> AsyncIterator[str]:
    """Server-sent events as the client gets them. The first chunk carries ``assay``; token counts are asked of vLLM
    always, and passed on when the client asked too. Half an answer has no end; nor has one that vLLM broke off, whose
    own words for that may tell of its inside."""
    first = True
    async for line in lines:
        if not line.startswith("data: "):
            continue
        data = line.removeprefix("data: ")
        if data == "[DONE]" and seen.half:
            return
        if data == "[DONE]":
            seen.finished = True
            yield "data: [DONE]\n\n"
            return
        try:
            chunk = json.loads(data)
        except ValueError:
            return
        if not isinstance(chunk, dict) or "error" in chunk:
            return
        seen.usage(chunk.get("usage"))
        choices = chunk.get("choices") or []
        seen.cut = seen.cut or any(choice.get("finish_reason") == "length" for choice in choices)
        seen.text += [text for choice in choices if (text := choice.get("delta", {}).get("content"))]
        if seen.first is None and seen.text:
            seen.first = time.monotonic()
        if not choices and not wants_usage:
            continue
        if choices:
            chunk.pop("usage", None)  # of the tokens so far: OpenAI's clients expect it at the end
        chunk["model"] = product
        if first:
            chunk["assay"] = provenance
            first = False
        yield f"data: {json.dumps(chunk)}\n\n"
