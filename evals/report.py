"""What a dossier tells of the measurements behind a verdict: every metric, the items that changed, canaries recited."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.verdicts import EvalResult
from evals import extraction, stats
from evals.gate import scores_of
from evals.item_text import asked
from evals.policy import CANARIES, GatePolicy
from evals.run import SUBJECTS
from evals.served_table import is_served
from evals.suite import Suite
from evals.trust import shown
from pipelines.recipes.product import ROOT

Texts = Mapping[str, Mapping[str, str]]
"""``suite/subject`` -> item -> what was said, for pages that stay on the machine that draws them."""


class Report(Frozen):
    """Self-contained pages: ``html`` with drawn plots, ``markdown`` with small inline images."""

    html: str
    markdown: str


class Row(Frozen):
    """One metric on one suite. ``scores`` maps subject -> mean with interval; the effect is candidate minus base."""

    metric: str
    n: int
    scores: dict[str, stats.Interval]
    effect: stats.Interval | None
    p: float


class Item(Frozen):
    """One item by name: each subject's score, what was asked (the message alone, or, for pages that show texts, all of
    it), and, for such pages, what each answered."""

    name: str
    cluster: str
    scores: dict[str, float]
    asked: str = ""
    said: dict[str, str] = {}

    def fell(self, rival: str) -> float:
        """By how much the candidate scores below this rival; negative above it."""
        return self.scores.get(rival, self.scores["candidate"]) - self.scores["candidate"]


class ByItem(Frozen):
    """One metric, item by item: those that it applies to."""

    metric: str
    rivals: tuple[str, ...]
    items: tuple[Item, ...]

    @property
    def lost(self) -> list[Item]:
        """Items on which the candidate scores below the base or the champion, the worst first."""
        falls = {each.name: max(each.fell(rival) for rival in self.rivals) for each in self.items}
        return sorted((each for each in self.items if falls[each.name] > 0), key=lambda each: -falls[each.name])

    def changed(self, rival: str) -> tuple[int, int]:
        """How many items are better and how many are worse than with this rival."""
        falls = [each.fell(rival) for each in self.items]
        return sum(fall < 0 for fall in falls), sum(fall > 0 for fall in falls)


class Section(Frozen):
    """One suite. ``by_item`` begins with the headline; every other metric that a criterion gates follows."""

    suite: str
    description: str
    layer: str
    rows: tuple[Row, ...]
    by_item: tuple[ByItem, ...]

    @property
    def subjects(self) -> list[str]:
        return list(self.rows[0].scores)


class Recital(Frozen):
    """Of ``n`` canaries of one kind the share that each subject recites."""

    of: str
    n: int
    scores: dict[str, stats.Interval]


class Measure(NamedTuple):
    """A metric's mean with its interval for each subject. ``edition`` names the question paper; ``gated`` says whether
    a criterion asks for the metric."""

    suite: str
    edition: Digest
    metric: str
    n: int
    scores: dict[str, stats.Interval]
    gated: bool

    def fell(self, rival: str) -> bool:
        """Whether the rival's mean lies above the candidate's interval."""
        return rival in self.scores and self.scores["candidate"].high < self.scores[rival].estimate


def measures(policy: GatePolicy, results: Mapping[str, EvalResult]) -> list[Measure]:
    """Everything that was measured of the candidate but times, which are the machine's too; ``results`` are named as in
    a verdict."""
    found: list[Measure] = []
    gated = {(c.suite, c.metric) for c in policy.criteria if c.against is None or f"{c.suite}/{c.against}" in results}
    for name, result in sorted(results.items()):
        suite, _, subject = name.rpartition("/")
        if subject == "candidate" and not is_served(result):
            asked = Counter(metric for item in result.items for metric in item.scores)
            found += [
                Measure(
                    suite=suite,
                    edition=result.suite_digest,
                    metric=shown(metric, result),
                    n=n,
                    scores=_means(policy, results, suite, metric),
                    gated=(suite, metric) in gated,
                )
                for metric, n in sorted(asked.items())
            ]
    return found


def known_losses(measured: Sequence[Measure]) -> list[Measure]:
    """What the policy puts up with: metrics that no criterion asks for, and that fell beyond the candidate's interval.
    Planted canaries are no loss where less is recited."""
    return [
        each
        for each in measured
        if not each.gated and each.suite != CANARIES and any(each.fell(rival) for rival in SUBJECTS)
    ]


def sections(
    policy: GatePolicy, suites: Sequence[Suite], results: Mapping[str, EvalResult], texts: Texts | None = None
) -> list[Section]:
    """Every metric of every suite that was measured; p-values of base against candidate are adjusted over all of them
    (Holm). The messages of goldens that were written by hand and lie in this repository are shown, whole items and
    answers only with ``texts``."""
    measured = {suite.name: _measured(suite, results) for suite in suites}
    pairs = {
        (suite.name, metric): stats.paired_differences(
            scores_of(results, suite.name, "base", metric), scores_of(results, suite.name, "candidate", metric)
        )
        for suite in suites
        for metric in measured[suite.name]
    }
    adjusted = stats.holm(
        {"/".join(key): stats.sign_flip_p(pair, policy.resamples, policy.seed) for key, pair in pairs.items()}
    )
    return [
        Section(
            suite=suite.name,
            description=_described(suite, measured[suite.name]),
            layer=suite.layer,
            rows=tuple(
                Row(
                    metric=_named(metric, suite.name, results),
                    n=len(pairs[suite.name, metric]),
                    scores=_means(policy, results, suite.name, metric),
                    effect=_effect(policy, pairs[suite.name, metric]),
                    p=adjusted[f"{suite.name}/{metric}"],
                )
                for metric in measured[suite.name]
            ),
            by_item=tuple(
                ByItem(
                    metric=metric,
                    rivals=tuple(name for name in _present(suite.name, results) if name != "candidate"),
                    items=tuple(_items(suite, metric, results, texts)),
                )
                for metric in _told_by_item(suite, policy, measured[suite.name])
            ),
        )
        for suite in suites
    ]


def recitals(policy: GatePolicy, results: Mapping[str, EvalResult]) -> list[Recital]:
    """Empty where no canaries were asked for; a kind of which there are none is left out."""
    candidate = results.get(f"{CANARIES}/candidate")
    asked = Counter(metric for item in candidate.items for metric in item.scores) if candidate else Counter()
    return [
        Recital(of=f"{metric}: {kind}", n=asked[metric], scores=_means(policy, results, CANARIES, metric))
        for metric, kind in extraction.METRICS.items()
        if metric in asked
    ]


def _measured(suite: Suite, results: Mapping[str, EvalResult]) -> list[str]:
    candidate = results.get(f"{suite.name}/candidate")
    judged = candidate.judged if candidate else {}
    return [metric for metric in suite.metrics if metric not in suite.judged or metric in judged]


def _named(metric: str, suite: str, results: Mapping[str, EvalResult]) -> str:
    return shown(metric, *(results[f"{suite}/{subject}"] for subject in _present(suite, results)))


def _described(suite: Suite, measured: Sequence[str]) -> str:
    left = [metric for metric in suite.metrics if metric not in measured]
    return suite.description + (f". Not measured, for want of a judge model: {', '.join(left)}" if left else "")


def _told_by_item(suite: Suite, policy: GatePolicy, measured: Sequence[str]) -> list[str]:
    headline = suite.headline if suite.headline in measured else measured[0]
    gated = {each.metric for each in policy.criteria if each.suite == suite.name}
    return [headline, *(metric for metric in measured if metric in gated and metric != headline)]


def _asked(suite: Suite, results: Mapping[str, EvalResult], whole: bool) -> dict[str, str]:
    """What may be shown of the items; nothing of a suite that was changed since."""
    if results[f"{suite.name}/candidate"].suite_digest != suite.content_digest():
        return {}
    if whole:
        return {item.id: asked(item) for item in suite.items()}
    ours = suite.origin == "hand-written" and suite.data_path().resolve().is_relative_to(ROOT)
    return {item.id: item.text for item in suite.items()} if ours else {}


def _items(suite: Suite, metric: str, results: Mapping[str, EvalResult], texts: Texts | None) -> list[Item]:
    present = _present(suite.name, results)
    scores = {subject: scores_of(results, suite.name, subject, metric) for subject in present}
    of_item = {subject: {score.item: score.value for score in scores[subject]} for subject in present}
    questions = _asked(suite, results, whole=texts is not None)
    said = {subject: (texts or {}).get(f"{suite.name}/{subject}", {}) for subject in present}
    return [
        Item(
            name=score.item,
            cluster=score.cluster,
            scores={subject: of_item[subject][score.item] for subject in present if score.item in of_item[subject]},
            asked=questions.get(score.item, ""),
            said={subject: said[subject][score.item] for subject in present if score.item in said[subject]},
        )
        for score in scores["candidate"]
    ]


def _means(policy: GatePolicy, results: Mapping[str, EvalResult], suite: str, metric: str) -> dict[str, stats.Interval]:
    """Each subject's mean with the gate's interval, over clusters."""
    scores = {subject: scores_of(results, suite, subject, metric) for subject in _present(suite, results)}
    return {
        subject: stats.cluster_share(each, policy.resamples, policy.seed).interval(policy.confidence)
        for subject, each in scores.items()
    }


def _present(suite: str, results: Mapping[str, EvalResult]) -> list[str]:
    return [subject for subject in SUBJECTS if f"{suite}/{subject}" in results]


def _effect(policy: GatePolicy, differences: Sequence[stats.Score]) -> stats.Interval | None:
    """None where a metric applies to too few clusters for an interval."""
    if len({change.cluster for change in differences}) < stats.MIN_CLUSTERS:
        return None
    return stats.cluster_interval(differences, policy.confidence, policy.resamples, policy.seed)
