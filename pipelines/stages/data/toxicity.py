"""Rows whose answer offends. What a person asks may be rude, and a polite answer to it is worth learning: only what the
model would learn to say is scored."""

from collections.abc import Sequence

from data_contracts.policy import DataPolicy
from pipelines.stages.data.item import Dropped, Item, Row
from pipelines.stages.protocols import Parts


def offending(parts: Parts, policy: DataPolicy, items: Sequence[Item]) -> dict[str, Dropped]:
    """Row name -> the drop, for rows of which an answer scores above the policy's ``max_toxicity``."""
    limit = policy.max_toxicity
    if limit is None:
        return {}
    texts = [(item, text) for item in items for text in learned(item.row)]
    scores = parts.toxicity.scores([text for _, text in texts])
    return {
        item.name: Dropped(item, "toxicity", f"an answer scores above max_toxicity {limit:g} of policy {policy.name}")
        for (item, _), score in zip(texts, scores, strict=True)
        if score > limit
    }


def learned(row: Row) -> list[str]:
    """What the model would learn to say: the assistant's turns, or the chosen side of a pair."""
    if row["kind"] == "preference":
        return [row["pair"]["chosen"]]
    return [message["content"] for message in row["example"]["messages"] if message["role"] == "assistant"]
