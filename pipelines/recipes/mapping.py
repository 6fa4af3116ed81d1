"""How plain columns become a conversation or a preference pair, said in a product file.

Format strings name columns in braces. An answer written as a YAML mapping becomes a JSON object of its format strings:
``assistant: {intent: "{category}"}`` makes ``{"intent": "card_arrival"}``.
"""

import json
import re
from typing import Any

from data_contracts.frozen import Frozen

Answer = str | dict[str, Any]

_FIELD = re.compile(r"\{(\w+)\}")


class Columns(Frozen):
    """One question and its answer."""

    user: str
    assistant: Answer
    system: str = ""


class PairColumns(Frozen):
    """One question, the answer to prefer and the one to avoid."""

    user: str
    chosen: Answer
    rejected: Answer
    system: str = ""


class Transcripts(Frozen):
    """Two columns with whole dialogues (``\\n\\nHuman: ...\\n\\nAssistant: ...``) that differ in the last answer."""

    chosen_transcript: str
    rejected_transcript: str


def fill(answer: Answer, record: dict[str, Any]) -> str:
    """The text of a format string, or the JSON text of a mapping of them. ``ValueError`` for a missing column."""
    return _text(answer, record) if isinstance(answer, str) else json.dumps(_filled(answer, record), ensure_ascii=False)


def _filled(value: Any, record: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return _text(value, record)
    if isinstance(value, dict):
        return {key: _filled(each, record) for key, each in value.items()}
    return [_filled(each, record) for each in value] if isinstance(value, list) else value


def _text(template: str, record: dict[str, Any]) -> str:
    def column(match: re.Match[str]) -> str:
        if record.get(match[1]) is None:
            raise ValueError(f"{match[1]}: the product's mapping needs this column; fill it in or change the mapping")
        return str(record[match[1]])

    return _FIELD.sub(column, template)
