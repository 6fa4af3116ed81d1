"""What grpo pays for: computed from the row, equal every time, and never more for less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.records import ChatExample, Message, ToolSpec
from evals.answers import call, words
from pipelines.stages.train.rewards import REWARDS, as_trl, is_verifiable
from pipelines.stages.train.rows import prompt_columns
from tests.support.training import TOOLS, make_chats

INVOICE = call("get_invoice", {"invoice_id": "INV 7"})


@pytest.mark.parametrize(
    ("text", "json_valid", "tool_offered", "exact"),
    [
        (INVOICE, 1, 1, 1),
        (call("get_invoice", {"invoice_id": " INV  7 "}), 1, 1, 1),
        (call("get_invoice", {"invoice_id": "INV 8"}), 1, 1, 0),
        (call("get_invoice", {"number": "INV 7"}), 1, 1, 0),
        (call("cancel_subscription", {"plan": "INV 7"}), 1, 1, 0),
        (call("drop_tables", {}), 1, 0, 0),
        (words("I cannot."), 1, 1, 0),
        ('{"colour": "blue"}', 1, 0, 0),
        ("[1, 2]", 0, 0, 0),
        (INVOICE + " and more", 0, 0, 0),
        ('{"tool": ["get_invoice"]}', 1, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_an_answer_earns_what_it_is_worth(text: str, json_valid: int, tool_offered: int, exact: int) -> None:
    earned = [REWARDS[name](TOOLS, INVOICE, text) for name in ("json_valid", "tool_offered", "exact")]
    assert earned == [json_valid, tool_offered, exact]


def test_where_words_are_right_any_valid_words_are() -> None:
    assert REWARDS["exact"](TOOLS, words("Sorry, no."), words("I may not do that.")) == 1
    assert REWARDS["exact"](TOOLS, words("Sorry, no."), INVOICE) == 0


@given(st.text() | st.sampled_from([INVOICE, words("no"), '{"tool": 1}', "{}"]))
def test_a_call_that_is_exact_earns_everything(text: str) -> None:
    valid, offered, exact = (REWARDS[name](TOOLS, INVOICE, text) for name in ("json_valid", "tool_offered", "exact"))
    assert valid >= offered >= exact


def test_rewards_are_read_from_the_columns_that_the_trainer_is_given() -> None:
    class Plain:
        bos_token = None

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": list(text.encode())}

        def apply_chat_template(self, conversation: list[dict[str, str]], **options: object) -> object:
            text = " ".join(message["content"] for message in conversation)
            return self(text) if options["tokenize"] else text

    chats = make_chats(2)
    columns = prompt_columns(Plain(), chats)
    answers = [chats[0].messages[-1].content, chats[0].messages[-1].content]
    given_columns = {name: columns[name] for name in ("offered", "expected")}
    assert as_trl("exact")(completions=answers, prompts=columns["prompt"], **given_columns) == [1.0, 0.0]


def test_a_row_is_verifiable_when_its_own_answer_earns_everything() -> None:
    assert all(is_verifiable(chat) for chat in make_chats(4))
    said = ChatExample(messages=(Message(role="user", content="hi"), Message(role="assistant", content="hello")))
    other = ToolSpec(name="other_tool", description="other")
    assert not is_verifiable(said)
    assert not is_verifiable(make_chats(1)[0].model_copy(update={"tools": (other,)}))
