"""The texts of a training row that other steps compare."""

from pipelines.stages.data.item import Row


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
