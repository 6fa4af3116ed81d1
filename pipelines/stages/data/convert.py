"""A source's record as a conversation or a preference pair. Faults are ``ValueError`` sentences without values."""

import json
from typing import Any

from pydantic import ValidationError

from data_contracts.ratings import Label
from data_contracts.records import ChatExample, Message, PreferencePair
from pipelines.recipes.mapping import Columns, PairColumns, RatedColumns, Transcripts, fill
from pipelines.recipes.product import Source
from pipelines.stages.data.item import Row


def convert(source: Source, record: dict[str, Any], better: Label = "first") -> Row:
    """``{"kind": "sft", "example": ...}`` or ``{"kind": "preference", "pair": ...}``. ``better`` is the answer that the
    raters of a rated pair prefer."""
    try:
        if source.kind == "sft":
            return {"kind": "sft", "example": _chat(source, record).payload()}
        return {"kind": "preference", "pair": _pair(source, record, better).payload()}
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or ("messages" if source.kind == "sft" else "chosen")
        raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}; correct the row") from error


def _chat(source: Source, record: dict[str, Any]) -> ChatExample:
    if isinstance(source.mapping, Columns):
        prompt = _prompt(source.mapping.system, source.mapping.user, record)
        return ChatExample(
            messages=(*prompt, Message(role="assistant", content=fill(source.mapping.assistant, record)))
        )
    return ChatExample.model_validate(
        {"messages": _parsed(record, "messages"), "tools": _parsed(record, "tools") or ()}
    )


def _pair(source: Source, record: dict[str, Any], better: Label) -> PreferencePair:
    mapping = source.mapping
    worse = "second" if better == "first" else "first"
    if isinstance(mapping, Transcripts):
        return _from_transcripts(record.get(mapping.chosen_transcript), record.get(mapping.rejected_transcript))
    if isinstance(mapping, PairColumns):
        return PreferencePair(
            prompt=_prompt(mapping.system, mapping.user, record),
            chosen=fill(mapping.chosen, record),
            rejected=fill(mapping.rejected, record),
        )
    if isinstance(mapping, RatedColumns):
        answers = {"first": fill(mapping.first, record), "second": fill(mapping.second, record)}
        prompt = _prompt(mapping.system, mapping.user, record)
        return PreferencePair(prompt=prompt, chosen=answers[better], rejected=answers[worse])
    chosen, rejected = (better, worse) if "ratings" in record else ("chosen", "rejected")
    return PreferencePair.model_validate(
        {
            "prompt": _parsed(record, "prompt"),
            "tools": _parsed(record, "tools") or (),
            "chosen": record.get(chosen),
            "rejected": record.get(rejected),
        }
    )


def _prompt(system: str, user: str, record: dict[str, Any]) -> tuple[Message, ...]:
    asked = Message(role="user", content=fill(user, record))
    return (Message(role="system", content=fill(system, record)), asked) if system else (asked,)


def _parsed(record: dict[str, Any], field: str) -> Any:
    """A nested field: as it is, or from its JSON text where a column can only hold text. A prompt may be plain text."""
    value = record.get(field)
    if not isinstance(value, str):
        return value
    if field == "prompt" and not value.lstrip().startswith("["):
        return [{"role": "user", "content": value}]
    try:
        return json.loads(value) if value else None
    except ValueError:
        raise ValueError(f"{field}: is text that is not JSON; write a JSON list") from None


def _from_transcripts(chosen: Any, rejected: Any) -> PreferencePair:
    """Two dialogues that share everything but the last answer (the form of hh-rlhf)."""
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise ValueError("chosen: both transcripts must be text; fill them in")
    (*prompt, good), (*other, bad) = _turns(chosen), _turns(rejected)
    if prompt != other:
        raise ValueError("rejected: the two transcripts differ before the last answer; pair answers to one prompt")
    if not prompt or good.role != "assistant" or bad.role != "assistant":
        raise ValueError("chosen: a transcript must end with the assistant's answer; cut or complete it")
    return PreferencePair(prompt=tuple(prompt), chosen=good.content, rejected=bad.content)


def _turns(transcript: str) -> list[Message]:
    turns: list[Message] = []
    for part in ("\n\n" + transcript.strip()).split("\n\nHuman:")[1:]:
        question, *answers = part.split("\n\nAssistant:")
        turns.append(Message(role="user", content=question.strip()))
        turns += [Message(role="assistant", content=answer.strip()) for answer in answers]
    if not turns:
        raise ValueError("chosen: no turn starts with 'Human:'; is this a transcript?")
    return turns
