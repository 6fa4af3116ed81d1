"""Which answers of a candidate a person should look at: where it changed most, of which it was least sure, where its
scores are at odds with each other, and corners that few items cover."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from data_contracts.digests import Digest, sha256_json
from data_contracts.verdicts import EvalResult, ItemScore
from evals.policy import CANARIES
from evals.run import NO_TEMPLATE

CHANGED = "changed most against the baseline"
UNSURE = "the candidate was least sure of it"
UNDECIDED = "scored neither right nor wrong; how sure the candidate was is not on record"
AT_ODDS = "metrics disagree"
RARE = "few items are like it"


class EdgeCase(NamedTuple):
    """``item`` is ``suite/item``."""

    item: str
    why: str


def edge_cases(results: Mapping[str, EvalResult], count: int, candidate: Digest) -> tuple[EdgeCase, ...]:
    """At most ``count`` items that were asked in words, taken in turns from these kinds, each once. Ties are drawn
    by the candidate's digest: the same candidate gets the same items, and nobody knows them before it is there. Scores
    near 0.5 stand for doubt where no log-probabilities were told.

    ``results`` as in a verdict; the baseline is the champion, or the base where there is none.
    """
    cases = _cases(results)
    draw = {name: sha256_json([candidate, name]) for name in cases}
    orders: dict[str, Iterator[str]] = {
        CHANGED: iter(_ranked({n: -c.change for n, c in cases.items() if c.change > 0}, draw)),
        UNSURE: iter(_ranked({n: c.confidence for n, c in cases.items() if c.confidence is not None}, draw)),
        UNDECIDED: iter(
            _ranked({n: c.undecided for n, c in cases.items() if c.confidence is None and c.undecided < 0.5}, draw)
        ),
        AT_ODDS: iter(_ranked({n: -c.spread for n, c in cases.items() if c.spread > 0}, draw)),
        RARE: iter(_ranked({n: c.alike for n, c in cases.items()}, draw)),
    }
    picked: dict[str, str] = {}
    while orders and len(picked) < count:
        for why, items in list(orders.items()):
            item = next((each for each in items if each not in picked), None)
            if item is None:
                del orders[why]
            elif len(picked) < count:
                picked[item] = why
    return tuple(EdgeCase(item, why) for item, why in picked.items())


class _Case(NamedTuple):
    """``change`` is the largest of any metric, ``confidence`` the candidate's if it was told, ``undecided`` how far its
    most undecided score is from 0.5, ``spread`` how far its metrics lie apart, ``alike`` how many items share its
    metrics, then its cluster."""

    change: float
    confidence: float | None
    undecided: float
    spread: float
    alike: tuple[int, int]


def _cases(results: Mapping[str, EvalResult]) -> dict[str, _Case]:
    cases: dict[str, _Case] = {}
    for name, result in results.items():
        suite, _, subject = name.rpartition("/")
        rival = results.get(f"{suite}/champion") or results.get(f"{suite}/base")
        if subject != "candidate" or rival is None or suite == CANARIES or result.template == NO_TEMPLATE:
            continue
        before = {item.item: item.scores for item in rival.items}
        metrics = Counter(_metrics(item) for item in result.items)
        clusters = Counter(item.cluster for item in result.items)
        for item in result.items:
            scores, old = item.scores, before.get(item.item, {})
            cases[f"{suite}/{item.item}"] = _Case(
                change=max(
                    (abs(value - old[metric]) for metric, value in scores.items() if metric in old), default=0.0
                ),
                confidence=result.confidence.get(item.item),
                undecided=min((abs(value - 0.5) for value in scores.values()), default=0.5),
                spread=max(scores.values(), default=0.0) - min(scores.values(), default=0.0),
                alike=(metrics[_metrics(item)], clusters[item.cluster]),
            )
    return cases


def _metrics(item: ItemScore) -> frozenset[str]:
    """Items are asked different things when different metrics apply to them: a call, words, a refusal."""
    return frozenset(item.scores)


def _ranked(ranks: Mapping[str, float | tuple[int, int]], draw: Mapping[str, str]) -> list[str]:
    return sorted(ranks, key=lambda name: (ranks[name], draw[name]))
