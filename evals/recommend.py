"""Which technique to take: the cheapest of those that are no worse than the best. A pure function of measurements.

A technique *will do* when the intervals of its paired differences to all others lie above minus the suite's margin: it
is no worse than whichever is the best. It is *worse* when the interval of its difference to the highest mean lies below
zero, else *unclear*. Costs within a tenth of the least are alike; of those the simplest is taken. Where an unclear
technique would be taken if it did, or none is shown to do, the intervals do not tell.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

from data_contracts.frozen import Frozen
from evals.stats import Interval

Technique = Literal["prompt", "shots", "retrieval", "fine-tuned"]
TECHNIQUES: tuple[Technique, ...] = get_args(Technique)
"""The simplest first: what it takes to keep it running grows from left to right."""
ALIKE = 0.1
"""Of the least cost: a difference that the next run may turn around."""

Standing = Literal["will do", "unclear", "worse", "barred"]
Decision = Literal["recommend", "split", "none", "inconclusive"]
T = TypeVar("T", "Rival", Technique)


class Rival(NamedTuple):
    """A technique on one suite. ``against`` maps each other one to the interval of the difference to it; these hold
    together as for comparisons with the best (see `evals.desk_sheet`). ``cost`` is of so many requests in any unit;
    ``barred`` says why it is out whatever it scored."""

    technique: Technique
    quality: Interval
    against: Mapping[Technique, Interval]
    cost: float
    barred: str = ""


class Choice(Frozen):
    """``technique`` is the one to take; when inconclusive, the one to take by what is known so far. ``fit`` are those
    that would do; ``split``: no one does everywhere."""

    decision: Decision
    technique: Technique | None
    fit: tuple[Technique, ...]
    standings: dict[Technique, Standing] = {}
    reasons: tuple[str, ...]


def recommend(rivals: Sequence[Rival], margin: float, least: float) -> Choice:
    """The choice on one suite. At least one rival is not barred."""
    standings: dict[Technique, Standing] = {each.technique: "barred" for each in rivals if each.barred}
    reasons = [f"{each.technique} is out: {each.barred}" for each in rivals if each.barred]
    able = _simplest_first([each for each in rivals if not each.barred])
    best = max(able, key=lambda each: each.quality.estimate)  # of equals the first
    for each in able:
        others = [each.against[other.technique] for other in able if other is not each]
        will_do = all(difference.low > -margin for difference in others)
        worse = each is not best and each.against[best.technique].high < 0
        standings[each.technique] = "will do" if will_do else "worse" if worse else "unclear"
    said = f"{best.technique} scores best: {_range(best.quality)}"
    if best.quality.high < least:
        reasons.append(f"{said}, and that is below {least:g}: none will do")
        return Choice(decision="none", technique=None, fit=(), standings=standings, reasons=tuple(reasons))
    reasons.append(said if best.quality.low >= least else f"{said}; whether it reaches {least:g} is not told by that")
    reasons += [_why(each, best, standings[each.technique]) for each in able if each is not best]
    fit = [each for each in able if standings[each.technique] == "will do"]
    unclear = [each for each in able if standings[each.technique] == "unclear"]
    taken = _cheapest(fit or [best], lambda each: each.cost)
    rather = [each for each in unclear if _cheapest(_simplest_first([*fit, each]), lambda one: one.cost) is each]
    if fit:
        reasons.append(_of_cost(taken, fit, margin))
    if rather:
        names = ", ".join(each.technique for each in rather)
        reasons.append(f"whether {names} would do is not told by the intervals, and it would be taken: ask more items")
    return Choice(
        decision="inconclusive" if rather else "recommend",
        technique=taken.technique,
        fit=tuple(each.technique for each in fit),
        standings=standings,
        reasons=tuple(reasons),
    )


def overall(choices: Mapping[str, Choice], costs: Mapping[Technique, float]) -> Choice:
    """One choice for all suites, from the choice on each; ``costs`` are of all of them together."""
    open_ = [suite for suite, choice in choices.items() if choice.decision == "inconclusive"]
    nothing = [suite for suite, choice in choices.items() if choice.decision == "none"]
    each = tuple(f"{suite}: {_in_brief(choice)}" for suite, choice in choices.items())
    everywhere = [t for t in TECHNIQUES if all(t in choice.fit for choice in choices.values())]
    taken = _cheapest(everywhere, costs.__getitem__) if everywhere else None
    decision: Decision = "recommend"
    if open_:
        decision, why = "inconclusive", f"the intervals do not tell on {', '.join(open_)}"
    elif len(nothing) == len(choices):
        decision, why = "none", "no technique will do on any suite"
    elif taken is None:
        decision, why = "split", "no one technique will do on every suite"
    else:
        why = f"{taken} will do on every suite, and of those that do it is the cheapest, or as cheap and the simplest"
    return Choice(decision=decision, technique=taken, fit=tuple(everywhere), reasons=(*each, why))


class Payback(Frozen):
    """After how many ``requests`` the training of the fine-tuned model has paid, against the cheapest ``alternative``
    of no worse quality; ``None``: never, or there is none."""

    alternative: Technique | None
    requests: int | None
    reason: str


def payback(rivals: Sequence[Rival], margin: float, training: float | None, per: int) -> Payback:
    """``training`` in the unit of the rivals' costs, which are of ``per`` requests."""
    tuned = next(each for each in rivals if each.technique == "fine-tuned")
    if tuned.barred:
        return Payback(alternative=None, requests=None, reason="fine-tuning is out here")
    others = [each for each in rivals if each is not tuned and each.against["fine-tuned"].low > -margin]
    if not others:
        return Payback(alternative=None, requests=None, reason="no other technique is shown to be no worse")
    cheapest = _cheapest(_simplest_first(others), lambda each: each.cost)
    saved = (cheapest.cost - tuned.cost) / per
    if saved <= 0:
        return Payback(
            alternative=cheapest.technique,
            requests=None,
            reason=f"never: {cheapest.technique} is no worse and costs no more a request",
        )
    if training is None:
        return Payback(
            alternative=cheapest.technique, requests=None, reason="unknown: no record of its training is here"
        )
    requests = -int(-training // saved)
    return Payback(
        alternative=cheapest.technique,
        requests=requests,
        reason=f"after {requests:,} requests against {cheapest.technique}, which is no worse and costs more a request",
    )


def _cheapest(simplest_first: Sequence[T], cost: Callable[[T], float]) -> T:
    """The first of those whose cost is alike to the least."""
    limit = (1 + ALIKE) * min(cost(each) for each in simplest_first)
    return next(each for each in simplest_first if cost(each) <= limit)


def _simplest_first(rivals: Sequence[Rival]) -> list[Rival]:
    return sorted(rivals, key=lambda each: TECHNIQUES.index(each.technique))


def _why(rival: Rival, best: Rival, standing: Standing) -> str:
    difference = _range(rival.against[best.technique], signed=True)
    return f"{rival.technique} {difference} against {best.technique}: {standing}"


def _in_brief(choice: Choice) -> str:
    if choice.decision == "recommend":
        return f"take {choice.technique}"
    return "none will do" if choice.decision == "none" else f"open, {choice.technique} by what is known so far"


def _of_cost(taken: Rival, fit: Sequence[Rival], margin: float) -> str:
    if len(fit) == 1:
        return f"{taken.technique} alone is shown to be no worse than any by more than {margin:g}"
    names = ", ".join(each.technique for each in fit)
    none_worse = f"{names} are no worse than any by more than {margin:g}"
    return f"{none_worse}; of these {taken.technique} is the cheapest, or as cheap and simpler"


def _range(interval: Interval, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{interval.estimate:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
