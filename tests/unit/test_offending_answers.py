"""An answer that offends is not learned; what a customer asks may be rude."""

from pathlib import Path

from data_contracts.policy import DataPolicy, load_policy
from pipelines.stages.data.item import Item
from pipelines.stages.data.toxicity import offending
from tests.support.data import DataParts, billing, item


def talk(question: str, answer: str) -> Item:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    row = {"kind": "sft", "example": {"messages": messages, "tools": []}}
    return item(row)


def policy(limit: float | None) -> DataPolicy:
    shipped = load_policy(billing().file("data_policy", billing().data_policy))
    return shipped.model_copy(update={"max_toxicity": limit})


def test_only_what_the_model_would_say_is_judged(tmp_path: Path) -> None:
    rude, polite = talk("Where is it?", "Look, idiot."), talk("Where is it, idiot?", "On its way.")
    pair = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "Hello", "rejected": "Go away, idiot", "tools": []}
    preference = item({"kind": "preference", "pair": pair})
    found = offending(DataParts(tmp_path), policy(0.8), [rude, polite, preference])
    assert list(found) == [rude.name]
    assert (found[rude.name].code, "max_toxicity 0.8" in found[rude.name].reason) == ("toxicity", True)
    assert "idiot" not in found[rude.name].reason


def test_a_policy_without_a_limit_filters_nothing(tmp_path: Path) -> None:
    assert offending(DataParts(tmp_path), policy(None), [talk("Where?", "Look, idiot.")]) == {}
