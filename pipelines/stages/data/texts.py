"""The texts of a training row that other steps compare."""

import re

from pipelines.stages.data.item import Row
from pipelines.stages.data.meaning import Wording

_PROSE = 8
"""Words from which an answer may be worded in several ways; a shorter one is a label or a name."""


def asked(row: Row) -> str:
    """What the customer says, over all turns."""
    messages = row["example"]["messages"] if row["kind"] == "sft" else row["pair"]["prompt"]
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def answered(row: Row) -> str:
    """What is learned: the last answer, or both sides of a pair."""
    if row["kind"] == "sft":
        return str(row["example"]["messages"][-1]["content"])
    return f"{row['pair']['chosen']}\n{row['pair']['rejected']}"


def whole(row: Row) -> str:
    """Everything that is said, and the names of the tools on offer: without them an answer may be right or wrong."""
    body = row["example"] if row["kind"] == "sft" else row["pair"]
    turns = [message["content"] for message in body.get("messages", body.get("prompt", []))]
    answers = [] if row["kind"] == "sft" else [body["chosen"], body["rejected"]]
    return "\n".join([row["kind"], *sorted(tool["name"] for tool in body["tools"]), *turns, *answers])


def reworded(row: Row) -> Wording:
    """What a row and its copy in other words have in common, and the texts that may be worded otherwise: what the
    customer says, and answers in prose. Calls, labels, instructions and what tools answered stay as they are."""
    body = row["example"] if row["kind"] == "sft" else row["pair"]
    turns = [(turn["role"], turn["content"]) for turn in body.get("messages", body.get("prompt", []))]
    turns += [] if row["kind"] == "sft" else [("assistant", body["chosen"]), ("assistant", body["rejected"])]
    fixed, free = [row["kind"], *sorted(tool["name"] for tool in body["tools"])], []
    for role, text in turns:
        prose = role == "assistant" and text[:1] not in ("{", "[") and len(re.findall(r"\w+", text)) >= _PROSE
        if role == "user" or prose:
            free.append(text)
        fixed.append(role if role == "user" or prose else f"{role}: {text}")
    return Wording("\n".join(fixed), tuple(free))
