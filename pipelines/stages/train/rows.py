"""Training rows as the template renders them. A row that would teach nothing, or that does not fit, is refused."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from data_contracts.records import ChatExample, PreferencePair, ToolSpec

R = TypeVar("R", ChatExample, PreferencePair)


class Tokenizer(Protocol):
    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """One row a line. Raises `BadInput` that names the line and the fields, but not their text."""
    rows: list[R] = []
    with path.open() as lines:
        for number, line in enumerate(lines, start=1):
            try:
                rows.append(kind.model_validate_json(line))
            except ValidationError as error:
                fields = ", ".join(".".join(map(str, e["loc"])) or "row" for e in error.errors(include_input=False))
                raise BadInput(f"{path.name}, row {number}: not a {kind.__name__} ({fields})") from None
    return rows


def order(rows: int, count: int, seed: int) -> list[int]:
    """Which rows are seen, one after another: ``count`` indices below ``rows``, fixed by ``seed``.

    Each pass draws every row once, the last one as many as are still needed. Rows of like length are not put together:
    they tend to be of like kind, and a batch should be mixed.
    """
    draw = random.Random(seed)
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += draw.sample(range(rows), min(rows, count - len(drawn)))
    return drawn


def template_kwargs(tools: Sequence[ToolSpec]) -> dict[str, Any]:
    """What the template reads besides the messages."""
    return {"assay_tools": [tool.model_dump() for tool in tools]} if tools else {}


def sft_columns(rows: Sequence[ChatExample]) -> dict[str, list[Any]]:
    """Columns of TRL's conversational language-modelling format."""
    return {
        "messages": [[message.model_dump() for message in row.messages] for row in rows],
        "chat_template_kwargs": [template_kwargs(row.tools) for row in rows],
    }


def preference_columns(rows: Sequence[PreferencePair]) -> dict[str, list[Any]]:
    """Columns of TRL's conversational preference format."""
    return {
        "prompt": [[message.model_dump() for message in row.prompt] for row in rows],
        "chosen": [[{"role": "assistant", "content": row.chosen}] for row in rows],
        "rejected": [[{"role": "assistant", "content": row.rejected}] for row in rows],
        "chat_template_kwargs": [template_kwargs(row.tools) for row in rows],
    }


def check_rows(
    tokenizer: Tokenizer,
    rows: Sequence[ChatExample | PreferencePair],
    names: Sequence[Digest],
    max_length: int,
    where: str,
) -> None:
    """Refuse, by its name, a row without a learnable token or of more than ``max_length`` tokens (of a pair: the longer
    side). Raises `BadInput`."""
    if not rows:
        raise BadInput(f"{where}: there are no rows; the split or the mixture is empty")
    for name, row in zip(names, rows, strict=True):
        longest = 0
        for tokens in rendered(tokenizer, row):
            if 1 not in tokens["assistant_masks"]:
                raise BadInput(
                    f"{where}, row {name}: every label is masked, so that it teaches nothing; does the template "
                    "mark the assistant's words with {% generation %}?"
                )
            longest = max(longest, len(tokens["input_ids"]))
        if longest > max_length:
            raise BadInput(
                f"{where}, row {name}: {longest} tokens, and the recipe's max_length is {max_length}; raise it or "
                "shorten the row"
            )


def rendered(tokenizer: Tokenizer, row: ChatExample | PreferencePair) -> list[dict[str, list[int]]]:
    """``input_ids`` and ``assistant_masks`` of a chat, or of a pair's two sides, by the product's template."""
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    kwargs = template_kwargs(row.tools)
    return [tokenizer.apply_chat_template(each, **options, **kwargs) for each in _conversations(row)]


def _conversations(row: ChatExample | PreferencePair) -> list[list[dict[str, str]]]:
    if isinstance(row, ChatExample):
        return [[message.model_dump() for message in row.messages]]
    prompt = [message.model_dump() for message in row.prompt]
    return [[*prompt, {"role": "assistant", "content": answer}] for answer in (row.chosen, row.rejected)]
