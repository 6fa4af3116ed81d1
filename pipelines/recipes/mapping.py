"""How plain columns become a conversation or a preference pair, said in a product file.

Format strings name columns in braces. An answer written as a YAML mapping becomes a JSON object of its format strings:
``assistant: {intent: "{category}"}`` makes ``{"intent": "card_arrival"}``.
"""

import json
import re
from typing import Annotated, Any

from pydantic import Field

from data_contracts.frozen import Frozen
from data_contracts.ratings import GUIDELINES, Label

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


class RaterColumns(Frozen):
    """One column a rater. ``labels`` says what a cell means, whose text is its key; an empty cell is no rating. What
    stands in ``adjudicator``'s column wins."""

    columns: tuple[str, ...] = Field(min_length=1)
    labels: dict[Annotated[str, Field(coerce_numbers_to_str=True)], Label]
    guidelines: str = Field(pattern=GUIDELINES)
    adjudicator: str | None = None


class RatedColumns(Frozen):
    """One question and two answers, of which the raters say which one is better. ``ratings`` is a column that holds a
    list of ratings (see `data_contracts.ratings.Rating`), or tells of one column a rater."""

    user: str
    first: Answer
    second: Answer
    ratings: str | RaterColumns
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
