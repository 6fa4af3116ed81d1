"""The decision sheet for people: a page without outside requests, and Markdown for Dagster. No text of an item."""

from evals.desk_sheet import PER, DeskSheet, OnSuite
from evals.document import YEAR
from evals.recommend import TECHNIQUES, Choice, Decision
from evals.report import Report
from evals.stats import Interval
from evals.templates import page

ASKED = {
    "prompt": "the base, asked plainly",
    "shots": "the base, after worked examples",
    "retrieval": "the base, with passages from the product's documents before the question",
    "fine-tuned": "the candidate, as it is served",
}
COLOUR: dict[Decision, str] = {
    "recommend": "promote",
    "split": "promote",
    "none": "hold",
    "inconclusive": "inconclusive",
}


def pages(sheet: DeskSheet) -> Report:
    facts = {
        "sheet": sheet,
        "asked": ASKED,
        "order": TECHNIQUES,
        "colour": COLOUR,
        "headline": headline,
        "sentence": sentence,
        "interval": interval,
        "told": told,
        "changes": changes,
        "training": training(sheet),
        "per": f"{PER:,}",
        "percent": f"{100 * sheet.confidence:g} %",
    }
    return Report(html=page("desk.html.jinja", **facts), markdown=page("desk.md.jinja", **facts))


def headline(choice: Choice) -> str:
    if choice.decision == "recommend":
        return f"Take {choice.technique}"
    if choice.decision == "split":
        return "Suite by suite"
    if choice.decision == "none":
        return "None will do"
    return f"Inconclusive; {choice.technique} by what is known so far" if choice.technique else "Inconclusive"


def sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:]}."


def interval(found: Interval | None, form: str = ".3f") -> str:
    if found is None:
        return ""
    return f"{found.estimate:{form}} [{found.low:{form}}, {found.high:{form}}]"


def told(value: float | None, form: str) -> str:
    return "not told" if value is None else format(value, form)


def changes(part: OnSuite) -> str:
    """How often the suite's documents change."""
    known = part.volatility
    if known is None:
        return ""
    return (
        f"{known.documents} documents, watched for {known.years:.1f} years in all: {known.changes} changes, "
        f"{interval(known.per_year, '.2f')} a year of one document; {100 * known.lately:.0f} % of them changed in the "
        f"last {known.days} days"
    )


def training(sheet: DeskSheet) -> str:
    """What the fine-tuned model took once, and how often it is made anew."""
    again = f"made anew every {sheet.retrained_days} days ({YEAR / sheet.retrained_days:.2f} times a year)"
    if sheet.training is None:
        return f"no record of its training is here; {again}"
    cost = "" if sheet.training.cost is None else f", at a cost of {sheet.training.cost:.4g}"
    return f"{sheet.training.seconds:,.0f} s of training{cost}; {again}"
