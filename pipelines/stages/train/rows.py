"""Training rows as the template renders them. A row that would teach nothing, or that does not fit, is refused."""

import json
import random
from collections.abc import Sequence
from heapq import nlargest
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from data_contracts.records import ChatExample, PreferencePair, ToolSpec

R = TypeVar("R", ChatExample, PreferencePair)

Side = tuple[PreferencePair, bool]
"""One answer of a pair, and whether it is the one that is wanted."""
Row = ChatExample | PreferencePair | Side


class Tokenizer(Protocol):
    bos_token: str | None

    def __call__(self, text: str) -> Any: ...

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


def kto_columns(sides: Sequence[Side]) -> dict[str, list[Any]]:
    """Columns of TRL's conversational unpaired preference format."""
    answers = [pair.chosen if wanted else pair.rejected for pair, wanted in sides]
    return {
        "prompt": [[message.model_dump() for message in pair.prompt] for pair, _ in sides],
        "completion": [[{"role": "assistant", "content": answer}] for answer in answers],
        "label": [wanted for _, wanted in sides],
        "chat_template_kwargs": [template_kwargs(pair.tools) for pair, _ in sides],
    }


def prompt_columns(tokenizer: Tokenizer, rows: Sequence[ChatExample]) -> dict[str, list[Any]]:
    """Prompts as text, since TRL takes one set of template arguments for all of them, with what `rewards` reads."""
    return {
        "prompt": [prompt_text(tokenizer, row) for row in rows],
        "offered": [json.dumps([tool.model_dump() for tool in row.tools]) for row in rows],
        "expected": [row.messages[-1].content for row in rows],
    }


def check_rows(
    tokenizer: Tokenizer,
    rows: Sequence[ChatExample | PreferencePair],
    names: Sequence[Digest],
    max_length: int,
    where: str,
    answers_only: bool = True,
) -> None:
    """Refuse, by its name, a row without a learnable token or of more than ``max_length`` tokens (of a pair: the longer
    side). Raises `BadInput`. Where not only answers are learned, every token is learnable."""
    if not rows:
        raise BadInput(f"{where}: there are no rows; the split or the mixture is empty")
    for name, row in zip(names, rows, strict=True):
        longest = 0
        for tokens in rendered(tokenizer, row):
            if answers_only and 1 not in tokens["assistant_masks"]:
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


def check_prompts(
    tokenizer: Tokenizer,
    rows: Sequence[ChatExample],
    names: Sequence[Digest],
    max_length: int,
    max_tokens: int,
    where: str,
) -> None:
    """Every prompt leaves room for an answer of ``max_tokens``. Raises `BadInput` that says which row does not."""
    if not rows:
        raise BadInput(f"{where}: there are no rows; the split or the mixture is empty")
    for name, row in zip(names, rows, strict=True):
        asked = len(prompt_tokens(tokenizer, row))
        if asked + max_tokens > max_length:
            raise BadInput(
                f"{where}, row {name}: a prompt of {asked} tokens and an answer of {max_tokens} (max_tokens) are more "
                f"than the recipe's max_length {max_length}; raise it or lower max_tokens"
            )


def longest(tokenizer: Tokenizer, rows: Sequence[Row]) -> int:
    """Tokens of the longest conversation, looked for among the rows of the most characters."""
    heaviest = nlargest(8, {id(row): row for row in rows}.values(), key=_characters)
    return max(len(tokens["input_ids"]) for row in heaviest for tokens in rendered(tokenizer, row))


def _characters(row: Row) -> int:
    return len((row[0] if isinstance(row, tuple) else row).model_dump_json())


def rendered(tokenizer: Tokenizer, row: Row) -> list[dict[str, list[int]]]:
    """``input_ids`` and ``assistant_masks`` of a chat, of a pair's two sides, or of one side, by the product's
    template."""
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    kwargs = template_kwargs((row[0] if isinstance(row, tuple) else row).tools)
    return [tokenizer.apply_chat_template(each, **options, **kwargs) for each in _conversations(row)]


def prompt_tokens(tokenizer: Tokenizer, row: ChatExample) -> list[int]:
    """What the model is asked with when it must give the row's last answer itself."""
    asked = [message.model_dump() for message in row.messages[:-1]]
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    tokens: list[int] = tokenizer.apply_chat_template(asked, **options, **template_kwargs(row.tools))["input_ids"]
    return tokens


def prompt_text(tokenizer: Tokenizer, row: ChatExample) -> str:
    """The text that the tokenizer turns into just `prompt_tokens`: it may begin a text of its own accord."""
    asked = [message.model_dump() for message in row.messages[:-1]]
    options = {"tokenize": False, "add_generation_prompt": True}
    text: str = tokenizer.apply_chat_template(asked, **options, **template_kwargs(row.tools))
    for each in (text, text.removeprefix(tokenizer.bos_token or "")):
        if tokenizer(text=each)["input_ids"] == prompt_tokens(tokenizer, row):
            return each
    raise BadInput(
        "this base's tokenizer adds tokens to a text that the template does not, so that prompts cannot be given as "
        "text: grpo and distill need another base"
    )


def _conversations(row: Row) -> list[list[dict[str, str]]]:
    if isinstance(row, ChatExample):
        return [[message.model_dump() for message in row.messages]]
    pair, wanted = row if isinstance(row, tuple) else (row, None)
    prompt = [message.model_dump() for message in pair.prompt]
    answers = {None: (pair.chosen, pair.rejected), True: (pair.chosen,), False: (pair.rejected,)}[wanted]
    return [[*prompt, {"role": "assistant", "content": answer}] for answer in answers]
