"""A value that is replaced is replaced everywhere in its row, and the row stays what it was."""

import json
import re
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stages.data import scrub as scrubbing
from pipelines.stages.data import steps
from pipelines.stages.data.item import Row
from pipelines.stages.data.rows import load
from pipelines.stages.data.scrub import scrub
from pipelines.stages.data.scrub_text import Operator
from pipelines.stages.data.substitutes import _luhn, substitute
from tests.support.data import DataParts, item, product_of, write_contract


def chat(question: str, answer: object) -> Row:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    return {"kind": "sft", "example": {"messages": messages, "tools": []}}


def test_text_and_tool_call_keep_one_value() -> None:
    call = {"tool": "send_receipt", "arguments": {"invoice_id": "INV-1", "email": "maria@web.de"}}
    row = scrub(
        chat("Receipt of INV-1 to maria@web.de, not to anna-maria@web.de!", call), {"maria@web.de": "EMAIL_ADDRESS"}
    )
    question, answer = (message["content"] for message in row["example"]["messages"])
    email = json.loads(answer)["arguments"]["email"]
    assert "maria@web.de" not in json.dumps(row).replace("anna-maria@web.de", "")
    assert f"to {email}," in question
    assert json.loads(answer)["arguments"]["invoice_id"] == "INV-1"
    assert answer == json.dumps(json.loads(answer))


def test_a_card_keeps_its_last_four_digits() -> None:
    call = {"tool": "update_card", "arguments": {"card_last4": "1111"}}
    row = scrub(chat("Use 4111 1111 1111 1111 now", call), {"4111 1111 1111 1111": "CREDIT_CARD"})
    question = row["example"]["messages"][0]["content"]
    assert "4111 1111 1111" not in question
    assert question.endswith("1111 now")


def test_a_loose_finding_does_not_part_text_and_argument() -> None:
    call = {"tool": "cancel_subscription", "arguments": {"plan": "Diamond"}}
    row = scrub(chat("Stop Diamond, please", call), {"Stop Diamond": "PERSON"})
    question, answer = (message["content"] for message in row["example"]["messages"])
    assert json.loads(answer)["arguments"]["plan"] in question


def test_both_sides_of_a_pair_are_scrubbed_alike() -> None:
    pair = {
        "prompt": [{"role": "user", "content": "I am Maria Keller"}],
        "chosen": "Hi Maria Keller",
        "rejected": "Maria Keller?",
    }
    row = scrub({"kind": "preference", "pair": pair | {"tools": []}}, {"Maria Keller": "PERSON"})
    name = row["pair"]["chosen"].removeprefix("Hi ")
    assert row["pair"]["rejected"] == f"{name}?"
    assert row["pair"]["prompt"][0]["content"] == f"I am {name}"
    assert "Maria" not in json.dumps(row)


def test_two_values_get_two_stand_ins_and_never_one_that_is_there() -> None:
    names = [f"Person{number} Smith" for number in range(30)]
    row = scrub(chat(" and ".join(names), "ok"), dict.fromkeys(names, "PERSON"))
    replaced = row["example"]["messages"][0]["content"].split(" and ")
    assert len(set(replaced)) == 30
    assert not set(replaced) & set(names)


def test_a_row_without_findings_is_untouched() -> None:
    row = chat("hello", '{"reply":   "odd spacing"}')
    assert scrub(row, {}) is row


@given(st.integers(0, 10**9), st.integers(0, 9999))
def test_stand_ins_are_valid_of_their_kind(number: int, last: int) -> None:
    card = substitute("CREDIT_CARD", f"1234 5678 9012 {last:04}", number).replace(" ", "")
    assert (len(card), card[-4:], _luhn([int(digit) for digit in card])) == (16, f"{last:04}", True)
    iban = substitute("IBAN_CODE", "x", number)
    assert int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


@pytest.mark.parametrize(
    "kind", ["PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "US_SSN", "URL_SECRET", "SECRET"]
)
def test_every_kind_has_many_stand_ins(kind: str) -> None:
    assert len({substitute(kind, "Some One", number) for number in range(100)}) == 100


MAIL, CALL = "maria@web.de", {"tool": "send_receipt", "arguments": {"email": "maria@web.de", "name": "Maria Keller"}}


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("redact", r"<PERSON> wants it at <EMAIL_ADDRESS>"),
        ("mask", r"\*{4} wants it at \*{4}"),
        ("hash", r"<PERSON:([0-9a-f]{16})> wants it at <EMAIL_ADDRESS:([0-9a-f]{16})>"),
        ("replace", r"\w+ \w+ wants it at [\w.]+@[\w.]+"),
        (None, r"\w+ \w+ wants it at [\w.]+@[\w.]+"),
    ],
)
def test_the_contracts_operator_holds_in_text_and_call_alike(tmp_path: Path, term: str | None, expected: str) -> None:
    """Beside rows of a contract without the term, whose values give way to made-up ones as ever."""
    sources = []
    for number, stated in enumerate([{"scrub": term} if term else {}, {}]):
        ask = f"Maria Keller wants it at {MAIL}" if number == 0 else f"Maria Keller wants all of this at {MAIL}, today"
        row = {"who": "m", "id": str(number), "messages": chat(ask, CALL)["example"]["messages"]}
        (tmp_path / f"{number}.jsonl").write_text(json.dumps(row) + "\n")
        contract = tmp_path / f"c{number}.yaml"
        columns = {"who": "string", "id": "string", "messages": "array"}
        write_contract(contract, columns, subjectKey="who", **stated)
        sources.append({"url": str(tmp_path / f"{number}.jsonl"), "contract": str(contract)})
    parts, product = DataParts(tmp_path / "home"), product_of(tmp_path, *sources)
    manifest, _ = steps.raw(parts, product)
    for step in (steps.contracted, steps.ledgered, steps.scrubbed):
        manifest, _ = step(parts, product, manifest)
    assert manifest.facts["entities"] == {"EMAIL_ADDRESS": 2, "PERSON": 2}
    turns = {
        item.row["example"]["messages"][0]["content"].endswith("today"): item.row["example"]["messages"]
        for item in load(parts, manifest)
    }
    question, answer = (turn["content"] for turn in turns[False])
    found = re.fullmatch(expected, question)
    assert found
    arguments = json.loads(answer)["arguments"]
    assert question == f"{arguments['name']} wants it at {arguments['email']}"
    assert not re.search(r"[<*]|maria@web", turns[True][0]["content"])


values = st.text(min_size=1, max_size=12).filter(lambda text: text.strip() == text)


@given(st.dictionaries(values, st.sampled_from(["PERSON", "EMAIL_ADDRESS"]), max_size=4), st.sampled_from(Operator))
def test_a_call_stays_json_and_keeps_its_keys_under_every_operator(found: dict[str, str], operator: Operator) -> None:
    call = {"tool": "note", "arguments": {"text": [*found], "count": 3, "deep": [{"text": " ".join(found)}]}}
    row = scrub(chat(" and ".join(found), call), found, operator, b"key")
    answer = json.loads(row["example"]["messages"][1]["content"])
    assert (answer["tool"], answer["arguments"]["count"]) == ("note", 3)
    assert answer["arguments"].keys() == call["arguments"].keys()


@given(
    st.lists(st.sampled_from(["Maria Keller", "jo@web.de or Maria Keller", "nobody", ""]), max_size=40),
    st.integers(1, 50),
)
def test_findings_do_not_depend_on_the_batches_that_texts_are_read_in(texts: list[str], size: int) -> None:
    with TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        parts: Any = DataParts(Path(home))
        patch.setattr(scrubbing, "BATCH_ROWS", size)
        items = [item(chat(text, "ok") | {"n": n}) for n, text in enumerate(texts)]
        found = list(scrubbing._found(parts, iter(items)))
        assert [each for each, _, _ in found] == items
        assert [findings for _, _, findings in found] == parts.pii.find([text for _, text, _ in found])
        assert parts.pii.calls == ceil(len(texts) / size) + 1
