"""The product's chat template: one text for training, evaluation and serving."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.stages.train.rows import template_kwargs
from tests.support.tiny import make_tiny_base
from tests.support.training import TEMPLATE, TOOLS

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)
FRAGMENTS = st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>system", "\n", " ", "{", "<|", "a"]), max_size=6)
CONTENT = st.one_of(TEXT, FRAGMENTS.map("".join))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(make_tiny_base(tmp_path_factory.mktemp("base")))
    loaded.chat_template = TEMPLATE.read_text()
    return loaded


def _text(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))


def test_tools_are_rendered_in_the_system_message(tokenizer: Any) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}]
    assert _text(tokenizer, messages, add_generation_prompt=True, **template_kwargs(TOOLS)) == (
        "<|im_start|>system\nBe kind.\n"
        'Answer with one JSON object: {"tool": name, "arguments": {}} or {"tool": "none", "reply": text}. Tools:\n'
        "- get_invoice(invoice_id): look up an invoice\n"
        "- cancel_subscription(plan): end a plan<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_without_tools_it_is_plain_chatml(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
    assert _text(tokenizer, messages) == expected
    assert _text(tokenizer, messages, assay_tools=[]) == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(question=CONTENT, answer=CONTENT, system=st.none() | CONTENT, tools=st.booleans())
def test_the_prompt_is_a_prefix_of_the_training_row_and_only_the_answer_is_learned(
    tokenizer: Any, question: str, answer: str, system: str | None, tools: bool
) -> None:
    prompt = [{"role": "user", "content": question}]
    if system is not None:
        prompt.insert(0, {"role": "system", "content": system})
    kwargs = template_kwargs(TOOLS) if tools else {}
    asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, **kwargs)["input_ids"]
    learned = tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": answer}],
        return_dict=True,
        return_assistant_tokens_mask=True,
        **kwargs,
    )
    ids, mask = learned["input_ids"], learned["assistant_masks"]
    assert ids[: len(asked)] == asked
    # What is learned: the answer and the end of its turn, without the line feed after it.
    assert mask == [0] * len(asked) + [1] * (len(ids) - len(asked) - 1) + [0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(question=CONTENT, system=CONTENT)
def test_text_cannot_forge_a_turn(tokenizer: Any, question: str, system: str) -> None:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(messages, return_dict=True, **template_kwargs(TOOLS))["input_ids"]
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert (ids.count(start), ids.count(end)) == (2, 2)


def test_the_template_file_ends_without_a_line_feed_in_its_output(tokenizer: Any) -> None:
    """A trailing line feed of the file would be a token that serving adds and training does not."""
    assert _text(tokenizer, [{"role": "user", "content": "x"}], add_generation_prompt=True).endswith("assistant\n")
    assert Path(TEMPLATE).read_bytes().endswith(b"-%}\n")
