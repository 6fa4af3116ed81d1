"""Each check turns away what it is for, says why without quoting it, and lets a good row pass."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stages.data.synthetic.plan import Plan, load_seeds
from pipelines.stages.data.synthetic.requests import Request, requests
from pipelines.stages.data.synthetic.sandbox import SANDBOXES, execute
from pipelines.stages.data.synthetic.validate import Completion, Draft, Fault, fault, read
from tests.support.teacher import DETECTOR, plan_of, words_of

CALL = {"tool": "get_invoice", "arguments": {"invoice_id": "INV-3104"}}
GOOD = {"question": "Please show me the invoice INV-3104 again.", "answer": CALL}
SPOKEN = {"question": "How much are three seats for a month?", "answer": words_of("That is 3 * 12.50 = 37.50 a month.")}


def asked(plan: Plan, intent: str = "open-invoice", language: str = "en") -> Request:
    made = requests(plan, load_seeds(plan), "m")
    return next(each for each in made if each.intent.name == intent and each.language == language)


def judged(plan: Plan, request: Request, answer: object, finish: str = "stop") -> Draft | Fault:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    draft = read(plan, request, Completion(text, finish))
    return draft if isinstance(draft, Fault) else fault(plan, request, draft, DETECTOR) or draft


def question(text: str, **arguments: str) -> dict[str, Any]:
    return {"question": text, "answer": {"tool": "get_invoice", "arguments": arguments or CALL["arguments"]}}


@pytest.mark.parametrize(("intent", "answer"), [("open-invoice", GOOD), ("prices", SPOKEN)])
def test_a_good_row_passes(intent: str, answer: object) -> None:
    plan = plan_of()
    assert isinstance(judged(plan, asked(plan, intent), answer), Draft)


@pytest.mark.parametrize(
    ("intent", "answer", "code"),
    [
        ("open-invoice", "Sure! Here is the row you asked for.", "not-json"),
        ("open-invoice", "[" * 100_000, "not-json"),
        ("open-invoice", [GOOD], "schema"),
        ("open-invoice", GOOD | {"note": "x"}, "schema"),
        ("open-invoice", GOOD | {"answer": "text"}, "schema"),
        ("open-invoice", GOOD | {"answer": CALL | {"tool": "delete_invoice"}}, "schema"),
        ("open-invoice", GOOD | {"answer": CALL | {"arguments": {}}}, "schema"),
        ("open-invoice", GOOD | {"question": "Show me\0 INV-3104 please now."}, "schema"),
        (
            "open-invoice",
            '{"question": "Show me \x1a INV-3104 please now.", "answer": ' + json.dumps(CALL) + "}",
            "schema",
        ),
        ("open-invoice", GOOD | {"question": "Show me \ud800 INV-3104 please now."}, "schema"),
        ("open-invoice", GOOD | {"question": " ?! "}, "empty"),
        ("prices", SPOKEN | {"answer": words_of("...")}, "empty"),
        ("prices", {"question": "The customer asks for a price.", "answer": words_of("It is 12.")}, "echo"),
        ("prices", SPOKEN | {"answer": words_of(str(SPOKEN["question"]))}, "echo"),
        ("open-invoice", question("INV-3104 please"), "length"),
        ("open-invoice", question("please " * 40 + "show INV-3104"), "length"),
        ("open-invoice", question("Zeigen Sie mir bitte noch einmal die Rechnung INV-3104."), "language"),
        (
            "prices",
            SPOKEN | {"answer": words_of("Das kostet für einen Monat leider etwas mehr als bisher.")},
            "language",
        ),
        ("open-invoice", GOOD | {"answer": words_of("I am afraid that I cannot show it.")}, "tool-choice"),
        ("prices", GOOD, "tool-choice"),
        (
            "open-invoice",
            question("Please show me the last invoice again.", invoice_id="INV-3104"),
            "invented-argument",
        ),
        ("open-invoice", question("Please show me the invoice INV-9999 now.", invoice_id="INV-9999"), "tool-failure"),
        ("prices", SPOKEN | {"answer": words_of("That is 3 * 12.50 = 38.50 a month for you.")}, "arithmetic"),
    ],
)
def test_a_row_that_breaks_a_rule_is_turned_away(intent: str, answer: object, code: str) -> None:
    plan = plan_of()
    found = judged(plan, asked(plan, intent), answer)
    assert isinstance(found, Fault), found
    assert found.code == code
    assert not any(said in found.reason for said in ("3104", "9999", "12.50", "Zeigen"))


@pytest.mark.parametrize(
    ("finish", "code"), [("length", "cut-off"), ("refusal", "withheld"), ("content_filter", "withheld")]
)
def test_an_answer_that_did_not_end_by_itself_is_none(finish: str, code: str) -> None:
    plan = plan_of()
    found = judged(plan, asked(plan), GOOD, finish)
    assert isinstance(found, Fault)
    assert found.code == code


def test_the_language_asked_for_is_the_one_that_passes() -> None:
    plan = plan_of(languages={"en": "English", "de": "German"})
    german = question("Zeigen Sie mir bitte noch einmal die Rechnung INV-3104.")
    assert isinstance(judged(plan, asked(plan, language="de"), german), Draft)
    found = judged(plan, asked(plan, language="de"), GOOD)
    assert isinstance(found, Fault)
    assert found.code == "language"


def test_without_tools_an_answer_is_text() -> None:
    intent = {"name": "prices", "wants": "A price.", "seeds": [{"question": "How much?", "answer": "Ten."}]}
    plan = plan_of(tools=[], sandbox=None, intents=[intent])
    request = asked(plan, "prices")
    draft = judged(plan, request, {"question": "How much is one seat?", "answer": "One seat is 12.50 a month."})
    assert isinstance(draft, Draft)
    assert draft.answer == "One seat is 12.50 a month."
    assert isinstance(judged(plan, request, SPOKEN), Fault)


def test_an_answer_is_written_as_rows_write_it() -> None:
    plan = plan_of()
    turned = {"arguments": {"invoice_id": "INV-3104"}, "tool": "get_invoice"}
    draft = judged(plan, asked(plan), {"answer": turned, "question": GOOD["question"]})
    assert isinstance(draft, Draft)
    assert draft.answer == '{"tool": "get_invoice", "arguments": {"invoice_id": "INV-3104"}}'


texts = st.text(max_size=40) | st.sampled_from(
    ["tool", "none", "reply", "get_invoice", "INV-3104", "question", "\ud800"]
)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
replies = st.builds(lambda said: {"tool": "none", "reply": said}, texts)
calls = st.builds(lambda name, given: {"tool": name, "arguments": {"invoice_id": given}}, texts, values)
answers = st.builds(lambda asked, answer: {"question": asked, "answer": answer}, values, values | replies | calls)


@given(values | answers | texts)
def test_whatever_a_teacher_writes_is_a_row_or_has_a_reason(answer: object) -> None:
    plan = plan_of()
    found = judged(plan, asked(plan), answer)
    assert isinstance(found, Draft | Fault)
    if isinstance(found, Draft):
        json.dumps(found, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("get_invoice", {"invoice_id": "INV-1"}, "no such invoice"),
        ("issue_refund", {"invoice_id": "INV-3101", "amount": "12.50"}, ""),
        ("issue_refund", {"invoice_id": "INV-3101", "amount": "12.51"}, "above what was paid"),
        ("issue_refund", {"invoice_id": "INV-3101", "amount": "0"}, "zero"),
        ("issue_refund", {"invoice_id": "INV-3101", "amount": "twelve"}, "no sum of money"),
        ("issue_refund", {"invoice_id": "INV-3103", "amount": "1.00"}, "not paid"),
        ("update_address", {"street": "4 Mill Lane", "city": "Northfield"}, ""),
        ("update_address", {"street": "Mill Lane", "city": "Northfield"}, "no number"),
        ("cancel_subscription", {"plan": "Gigantic"}, "no such plan"),
        ("update_card", {"card_last4": "12345"}, "four digits"),
        ("list_payments", {"month": "Smarch"}, "no such month"),
        ("send_receipt", {"invoice_id": "INV-3101", "email": "nobody"}, "e-mail"),
        ("apply_coupon", {"code": "SUMMER20"}, "expired"),
        ("pause_subscription", {"months": "13"}, "1 to 12"),
        ("get_tax_form", {"year": "1901"}, "no form"),
        ("change_billing_date", {"day": "31"}, "1 to 28"),
        ("dispute_charge", {"charge_id": "CH-1"}, "no such charge"),
    ],
)
def test_the_sandbox_turns_down_what_a_real_system_would(tool: str, arguments: dict[str, str], why: str) -> None:
    failure = execute(SANDBOXES["billing"], tool, arguments)
    assert (why in failure) if why else failure == ""
