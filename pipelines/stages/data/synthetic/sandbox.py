"""Tools that can be executed without doing anything: pure functions over made-up books. A call that a real system would
turn down fails here too, and says why without quoting an argument."""

import random
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import NamedTuple

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_INVOICES = {
    f"INV-{number}": (Decimal(amount), paid)
    for number, amount, paid in (
        (3101, "12.50", True),
        (3102, "49.00", True),
        (3103, "8.99", False),
        (3104, "120.00", True),
        (3105, "31.40", False),
        (3106, "64.75", True),
        (3107, "250.00", True),
        (3108, "19.99", True),
    )
}
_CHARGES = [f"CH-{number}" for number in range(7701, 7709)]
_PLANS = ["Basic", "Plus", "Family", "Business"]
_COUPONS = {"SPRING10": True, "WELCOME5": True, "LOYAL15": True, "SUMMER20": False}
_YEARS = range(2019, 2026)


class ToolFailure(Exception):
    """Why a call does not go through."""


class Sandbox(NamedTuple):
    """``tools``: name -> function of the arguments, which returns or raises `ToolFailure`. ``fact`` draws something
    true of the books that a call of the tool can be about, in words."""

    tools: Mapping[str, Callable[[Mapping[str, str]], None]]
    fact: Callable[[str, random.Random], str]


def execute(sandbox: Sandbox, tool: str, arguments: Mapping[str, str]) -> str:
    """Why the call fails, or nothing."""
    try:
        sandbox.tools[tool](arguments)
    except ToolFailure as failure:
        return str(failure)
    return ""


def _need(holds: object, failure: str) -> None:
    if not holds:
        raise ToolFailure(failure)


def _invoice(given: Mapping[str, str]) -> tuple[Decimal, bool]:
    _need(given["invoice_id"] in _INVOICES, "there is no such invoice")
    return _INVOICES[given["invoice_id"]]


def _get_invoice(given: Mapping[str, str]) -> None:
    _invoice(given)


def _issue_refund(given: Mapping[str, str]) -> None:
    amount, paid = _invoice(given)
    _need(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,2})?", given["amount"]), "the amount is no sum of money")
    _need(paid, "the invoice was not paid yet")
    _need(0 < Decimal(given["amount"]) <= amount, "the amount is zero or above what was paid")


def _update_address(given: Mapping[str, str]) -> None:
    _need(
        re.search(r"[0-9]", given["street"]) and re.search(r"[^\W\d]{2}", given["street"]), "the street has no number"
    )
    _need(re.search(r"[^\W\d]{2}", given["city"]), "the city is no name")


def _cancel_subscription(given: Mapping[str, str]) -> None:
    _need(given["plan"] in _PLANS, "there is no such plan")


def _update_card(given: Mapping[str, str]) -> None:
    _need(re.fullmatch(r"[0-9]{4}", given["card_last4"]), "the card's last digits are not four digits")


def _list_payments(given: Mapping[str, str]) -> None:
    _need(given["month"] in _MONTHS, "there is no such month")


def _send_receipt(given: Mapping[str, str]) -> None:
    _, paid = _invoice(given)
    _need(paid, "the invoice was not paid yet")
    _need(re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", given["email"]), "the e-mail address is none")


def _apply_coupon(given: Mapping[str, str]) -> None:
    _need(given["code"] in _COUPONS, "there is no such code")
    _need(_COUPONS[given["code"]], "the code has expired")


def _pause_subscription(given: Mapping[str, str]) -> None:
    _need(re.fullmatch(r"[1-9]|1[0-2]", given["months"]), "a plan pauses for 1 to 12 months")


def _get_tax_form(given: Mapping[str, str]) -> None:
    _need(given["year"] in map(str, _YEARS), "there is no form of that year")


def _change_billing_date(given: Mapping[str, str]) -> None:
    _need(re.fullmatch(r"[1-9]|1[0-9]|2[0-8]", given["day"]), "bills are due on day 1 to 28")


def _dispute_charge(given: Mapping[str, str]) -> None:
    _need(given["charge_id"] in _CHARGES, "there is no such charge")


def _billing_fact(tool: str, chance: random.Random) -> str:
    paid = [name for name, (_, settled) in _INVOICES.items() if settled]
    invoice = chance.choice(paid if tool in ("issue_refund", "send_receipt") else list(_INVOICES))
    facts = {
        "update_address": f"the new address is {chance.randrange(1, 90)} Mill Lane, Northfield",
        "cancel_subscription": f"the customer's plan is {chance.choice(_PLANS)}",
        "update_card": f"the new card ends in {chance.randrange(10_000):04}",
        "list_payments": f"the month is {chance.choice(_MONTHS)}",
        "send_receipt": f"invoice {invoice} was paid; the receipt goes to office@example.com",
        "apply_coupon": f"the code is {chance.choice([code for code, valid in _COUPONS.items() if valid])}",
        "pause_subscription": f"the pause is {chance.randrange(1, 7)} months",
        "get_tax_form": f"the year is {chance.choice(_YEARS)}",
        "change_billing_date": f"the new day is {chance.randrange(1, 29)}",
        "dispute_charge": f"the charge is {chance.choice(_CHARGES)}",
    }
    return facts.get(tool) or f"invoice {invoice} is over {_INVOICES[invoice][0]}"


SANDBOXES = {
    "billing": Sandbox(
        {
            "get_invoice": _get_invoice,
            "issue_refund": _issue_refund,
            "update_address": _update_address,
            "cancel_subscription": _cancel_subscription,
            "update_card": _update_card,
            "list_payments": _list_payments,
            "send_receipt": _send_receipt,
            "apply_coupon": _apply_coupon,
            "pause_subscription": _pause_subscription,
            "get_tax_form": _get_tax_form,
            "change_billing_date": _change_billing_date,
            "dispute_charge": _dispute_charge,
        },
        _billing_fact,
    )
}
