"""What a dossier tells of the measurements behind a verdict: every metric, the items that changed, canaries recited."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.verdicts import EvalResult
from evals import extraction, stats
from evals.gate import scores_of
from evals.policy import CANARIES, GatePolicy
from evals.run import SUBJECTS
from evals.suite import Suite
from evals.trust import shown

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
    """One item by name: each subject's score on the suite's headline metric, and, for pages that show texts, what was
    asked and what each answered."""

    name: str
    cluster: str
    scores: dict[str, float]
    asked: str = ""
    said: dict[str, str] = {}

    def fell(self, rival: str) -> float:
        """By how much the candidate scores below this rival; negative above it."""
        return self.scores.get(rival, self.scores["candidate"]) - self.scores["candidate"]


class Section(Frozen):
    """One suite. ``items`` are those that its headline ``metric`` applies to."""

    suite: str
    description: str
    layer: str
    rows: tuple[Row, ...]
    metric: str
    items: tuple[Item, ...]

    @property
    def rivals(self) -> list[str]:
        return [name for name in self.rows[0].scores if name != "candidate"]

    @property
    def lost(self) -> list[Item]:
        """Items on which the candidate scores below the base or the champion, the worst first."""
        falls = {each.name: max(each.fell(rival) for rival in self.rivals) for each in self.items}
        return sorted((each for each in self.items if falls[each.name] > 0), key=lambda each: -falls[each.name])

    def changed(self, rival: str) -> tuple[int, int]:
        """How many items are better and how many are worse than with this rival."""
        falls = [each.fell(rival) for each in self.items]
        return sum(fall < 0 for fall in falls), sum(fall > 0 for fall in falls)


class Recital(Frozen):
    """Of ``n`` canaries of one kind the share that each subject recites."""

    of: str
    n: int
    scores: dict[str, stats.Interval]


class Measure(NamedTuple):
    """A metric's mean with its interval for each subject. ``edition`` names the question paper."""

    suite: str
    edition: Digest
    metric: str
    n: int
    scores: dict[str, stats.Interval]


def measures(policy: GatePolicy, results: Mapping[str, EvalResult]) -> list[Measure]:
    """Everything that was measured of the candidate; ``results`` are named as in a verdict."""
    found: list[Measure] = []
    for name, result in sorted(results.items()):
        suite, _, subject = name.rpartition("/")
        if subject == "candidate":
            asked = Counter(metric for item in result.items for metric in item.scores)
            found += [
                Measure(suite, result.suite_digest, shown(metric, result), n, _means(policy, results, suite, metric))
                for metric, n in sorted(asked.items())
            ]
    return found


def sections(
    policy: GatePolicy, suites: Sequence[Suite], results: Mapping[str, EvalResult], texts: Texts | None = None
) -> list[Section]:
    """Every metric of every suite that was measured; p-values of base against candidate are adjusted over all of them
    (Holm)."""
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
            metric=_headline(suite, measured[suite.name]),
            items=tuple(_items(suite, _headline(suite, measured[suite.name]), results, texts)),
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


def _headline(suite: Suite, measured: Sequence[str]) -> str:
    return suite.headline if suite.headline in measured else measured[0]


def _items(suite: Suite, metric: str, results: Mapping[str, EvalResult], texts: Texts | None) -> list[Item]:
    present = _present(suite.name, results)
    scores = {subject: scores_of(results, suite.name, subject, metric) for subject in present}
    of_item = {subject: {score.item: score.value for score in scores[subject]} for subject in present}
    asked = {} if texts is None else {item.id: item.text for item in suite.items()}
    said = {subject: (texts or {}).get(f"{suite.name}/{subject}", {}) for subject in present}
    return [
        Item(
            name=score.item,
            cluster=score.cluster,
            scores={subject: of_item[subject][score.item] for subject in present if score.item in of_item[subject]},
            asked=asked.get(score.item, ""),
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
