"""Whether an artifact in another form still is the release that was judged: some items of every suite that is answered
in text are asked again, and scored beside what is on record."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import Refused
from data_contracts.manifests import SuiteAgreement
from data_contracts.verdicts import EvalResult
from evals.decoding import Decoding
from evals.protocols import ChatModel, Detectors
from evals.scorers import score
from evals.suite import ChatItem, Suite

TOLERANCE = 0.1
"""Of the items of a suite: so many may score otherwise than on record."""
SUBJECT = "candidate"

T = TypeVar("T")


def to_ask(suites: Sequence[Suite], results: Mapping[str, Digest]) -> tuple[list[Suite], list[str]]:
    """The suites to ask again, and the names of those that are left out: asked by lm-eval, or scored by a judge
    alone."""
    known = [suite for suite in suites if f"{suite.name}/{SUBJECT}" in results]
    asked = [suite for suite in known if suite.lm_eval is None and _plain(suite)]
    return asked, [suite.name for suite in known if suite not in asked]


def agreement(
    suite: Suite,
    result: EvalResult,
    model: ChatModel,
    decoding: Decoding,
    limit: int,
    detectors: Detectors,
    progress: Callable[[int, int], None],
) -> SuiteAgreement:
    """Ask up to ``limit`` items, spread evenly over the suite, under the artifact's own chat template. No text is kept.
    Raises `Refused` where the suite is not the one of the result any more."""
    if suite.content_digest() != result.suite_digest:
        raise Refused(
            f"suite {suite.name} was changed since the release was judged on it ({result.suite_digest}): export from "
            "the checkout that holds it as it was"
        )
    items = spread([item for item in suite.items() if isinstance(item, ChatItem)], limit)
    way = decoding.freed() if suite.free else decoding
    questions = {sha256_json([suite.name, item.id]): way.question("", item) for item in items}
    texts: dict[Digest, str] = {}

    def keep(key: Digest, text: str, confidence: float | None = None) -> None:
        texts[key] = text
        progress(len(texts), len(questions))

    model.chat(questions, keep)
    plain = _plain(suite)
    now = {item.id: score(item, texts[key], plain, detectors) for item, key in zip(items, questions, strict=True)}
    then = {each.item: {m: each.scores[m] for m in plain if m in each.scores} for each in result.items}
    metric = suite.headline if suite.headline in plain else plain[0]
    return SuiteAgreement(
        suite=suite.name,
        n=len(items),
        metric=metric,
        recorded=_mean([then[item][metric] for item in now if metric in then[item]]),
        exported=_mean([scores[metric] for scores in now.values() if metric in scores]),
        differ=tuple(item for item, scores in now.items() if scores != then.get(item)),
    )


def spread(items: Sequence[T], limit: int) -> list[T]:
    """So many of the items at even distances, or all of them."""
    count = min(limit, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def _plain(suite: Suite) -> tuple[str, ...]:
    """The metrics that need no judge."""
    return tuple(metric for metric in suite.metrics if metric not in suite.judged)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
