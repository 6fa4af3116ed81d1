"""The report of a verdict: for a reviewer, verdict first. Names and scores only; no text of any row or answer."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.manifests import BaseManifest, CheckpointManifest, ModelManifest
from data_contracts.verdicts import EvalResult, GateVerdict, LayerResults
from evals import extraction, plots, stats
from evals.gate import scores_of
from evals.policy import CANARIES, GatePolicy
from evals.protocols import EvalParts
from evals.run import SUBJECTS
from evals.suite import Suite, load_suites
from pipelines.recipes.product import Product

PAGES = Path(__file__).parent / "pages"


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


class Section(Frozen):
    """One suite. ``gained`` and ``lost`` name items whose ``metric`` score rose or fell from base to candidate."""

    suite: str
    description: str
    layer: str
    rows: tuple[Row, ...]
    metric: str
    gained: tuple[str, ...]
    lost: tuple[str, ...]


class Recital(Frozen):
    """Of ``n`` canaries of one kind the share that each subject recites."""

    of: str
    n: int
    scores: dict[str, stats.Interval]


def render(
    parts: EvalParts, product: Product, model: ModelManifest, verdict: GateVerdict, layers: Sequence[LayerResults]
) -> Report:
    """Both pages, from what the store holds. The same inputs give the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    named = {name: digest for layer in layers for name, digest in layer.results.items()}
    results = {name: parts.store.get_manifest(digest, EvalResult) for name, digest in named.items()}
    checkpoints = _lineage(parts, model.checkpoint)
    policy = parts.store.get_manifest(verdict.policy, GatePolicy)
    forest = plots.forest(verdict.criteria)
    curves = plots.curves({c.stage: parts.store.get_json(c.curve) for c in checkpoints})
    facts: dict[str, Any] = {
        "product": product,
        "model": model,
        "base": parts.store.get_manifest(model.base, BaseManifest),
        "verdict": verdict,
        "percent": f"{100 * policy.confidence:g} %",
        "subjects": [s for s in SUBJECTS if any(name.endswith(f"/{s}") for name in results)],
        "sections": _sections(policy, load_suites(product), results),
        "recitals": _recitals(policy, results),
        "engines": sorted({result.engine for result in results.values()}),
        "checkpoints": checkpoints,
    }
    pages = Environment(
        loader=FileSystemLoader(PAGES),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return Report(
        html=pages.get_template("report.html.jinja").render(forest=forest.svg(), curves=curves.svg(), **facts),
        markdown=pages.get_template("report.md.jinja").render(forest=_inline(forest), curves=_inline(curves), **facts),
    )


def _lineage(parts: EvalParts, checkpoint: Digest) -> list[CheckpointManifest]:
    """The checkpoint and those it was trained on from, oldest first."""
    chain: list[CheckpointManifest] = []
    following: Digest | None = checkpoint
    while following is not None:
        chain.append(parts.store.get_manifest(following, CheckpointManifest))
        following = chain[-1].parent
    return chain[::-1]


def _sections(policy: GatePolicy, suites: Sequence[Suite], results: Mapping[str, EvalResult]) -> list[Section]:
    """Every metric of every suite; p-values of base against candidate are adjusted over all of them (Holm)."""
    pairs = {
        (suite.name, metric): stats.paired_differences(
            scores_of(results, suite.name, "base", metric), scores_of(results, suite.name, "candidate", metric)
        )
        for suite in suites
        for metric in suite.metrics
    }
    adjusted = stats.holm(
        {"/".join(key): stats.sign_flip_p(pair, policy.resamples, policy.seed) for key, pair in pairs.items()}
    )
    sections: list[Section] = []
    for suite in suites:
        rows = tuple(
            Row(
                metric=metric,
                n=len(pairs[suite.name, metric]),
                scores=_means(policy, results, suite.name, metric),
                effect=_effect(policy, pairs[suite.name, metric]),
                p=adjusted[f"{suite.name}/{metric}"],
            )
            for metric in suite.metrics
        )
        changes = pairs[suite.name, suite.headline]
        sections.append(
            Section(
                suite=suite.name,
                description=suite.description,
                layer=suite.layer,
                rows=rows,
                metric=suite.headline,
                gained=tuple(change.item for change in changes if change.value > 0),
                lost=tuple(change.item for change in changes if change.value < 0),
            )
        )
    return sections


def _recitals(policy: GatePolicy, results: Mapping[str, EvalResult]) -> list[Recital]:
    """Empty where no canaries were asked for; a kind of which there are none is left out."""
    candidate = results.get(f"{CANARIES}/candidate")
    asked = Counter(metric for item in candidate.items for metric in item.scores) if candidate else Counter()
    return [
        Recital(of=f"{metric}: {kind}", n=asked[metric], scores=_means(policy, results, CANARIES, metric))
        for metric, kind in extraction.METRICS.items()
        if metric in asked
    ]


def _means(policy: GatePolicy, results: Mapping[str, EvalResult], suite: str, metric: str) -> dict[str, stats.Interval]:
    present = [subject for subject in SUBJECTS if f"{suite}/{subject}" in results]
    return {subject: stats.wilson(scores_of(results, suite, subject, metric), policy.confidence) for subject in present}


def _effect(policy: GatePolicy, differences: Sequence[stats.Score]) -> stats.Interval | None:
    """None where a metric applies to too few clusters for an interval."""
    if len({change.cluster for change in differences}) < stats.MIN_CLUSTERS:
        return None
    return stats.cluster_interval(differences, policy.confidence, policy.resamples, policy.seed)


def _inline(figure: plots.Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(figure.png()).decode()
