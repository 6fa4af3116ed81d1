"""Made-up customers of the loop: what they ask, and what should have been answered. At first they ask for what the
product was trained for; then also for what no training row offers."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_contracts.records import ToolSpec
from evals.answers import call
from evals.suite import tool_catalogue

KNOWN = {
    "get_invoice": (
        "Where do I find {invoice_id}?",
        "I'd like a look at bill {invoice_id}.",
        "Open {invoice_id}, please.",
    ),
    "list_payments": ("Which sums left my account in {month}?", "List what I transferred in {month}."),
    "cancel_subscription": ("The {plan} plan can go.", "I have no more use for {plan}; end it."),
    "apply_coupon": ("My voucher reads {code}.", "Take {code} off my next bill, it is a coupon."),
}
NEW = {
    "pause_subscription": (
        "We close the shop for {months} months; nothing should run until then.",
        "Could my plan sleep for {months} months?",
        "No need of you for {months} months, but I am coming back. Halt it.",
        "The studio is being rebuilt. Freeze the plan, {months} months should do.",
    ),
    "get_tax_form": (
        "My accountant asks for the form of {year}.",
        "What do I hand in to the revenue office for {year}? Send me your form.",
        "Filing {year} tonight and your tax statement is missing.",
        "One more paper to go: the tax form, year {year}.",
    ),
    "change_billing_date": (
        "My wages come later now, so bill me on day {day}.",
        "From next month collect on the {day}. of each month, would you?",
        "Day {day} suits my cash flow better for the bills.",
        "Please shift the due day to the {day}.",
    ),
    "dispute_charge": (
        "Charge {charge_id} is none of mine, I contest it.",
        "Who made {charge_id}? I never did, and want it looked into.",
        "There is {charge_id} on my statement and I have never seen that shop.",
        "I refuse to pay for {charge_id}; somebody else bought that.",
    ),
}
_OPENINGS = ("", "Hello! ", "Good morning. ", "Quick one: ", "Me again. ", "Hi there, ", "Sorry to bother you. ")
_CLOSINGS = ("", " Thanks!", " Cheers.", " It's rather urgent.", " No hurry.", " Regards, Noor", " Many thanks, Tam")
_ON_OFFER = 4


class Asked(NamedTuple):
    """A message, the tools on offer, and the call that it asks for, as an answer has it."""

    text: str
    tools: tuple[ToolSpec, ...]
    wanted: str


def questions(ask: Mapping[str, tuple[str, ...]], count: int, seed: int) -> list[Asked]:
    """``count`` questions for the tools of ``ask``, alike in number; no two are the same."""
    dice, catalogue, made = random.Random(seed), tool_catalogue(), dict[str, Asked]()
    names = sorted(ask)
    while len(made) < count:
        name = names[len(made) % len(names)]
        argument, value = _value(catalogue[name], dice)
        core = dice.choice(ask[name]).format(**{argument: value})
        text = dice.choice(_OPENINGS) + core + dice.choice(_CLOSINGS)
        tools = _offered(name, sorted(catalogue), dice)
        made[text] = Asked(text, tuple(catalogue[each] for each in tools), call(name, {argument: value}))
    return list(made.values())


def _value(tool: ToolSpec, dice: random.Random) -> tuple[str, str]:
    """Its one argument, and a value for it."""
    (argument,) = tool.parameters
    makers = {
        "invoice_id": f"INV-{dice.randint(1000, 9999)}",
        "month": dice.choice(("January", "March", "April", "July", "October")),
        "plan": dice.choice(("Basic", "Team", "Studio", "Family")),
        "code": f"{dice.choice(('SPRING', 'HELLO', 'BONUS'))}{dice.randint(10, 99)}",
        "months": str(dice.randint(2, 11)),
        "year": str(dice.randint(2015, 2025)),
        "day": str(dice.randint(2, 28)),
        "charge_id": f"CH-{dice.randint(10000, 99999)}",
    }
    return argument, makers[argument]


def _offered(name: str, names: Sequence[str], dice: random.Random) -> list[str]:
    offered = [name, *dice.sample([each for each in names if each != name], _ON_OFFER - 1)]
    dice.shuffle(offered)
    return offered
