"""The model card: Hugging Face's README.md with front matter and the sections of their template, made from manifests,
the gate's verdict and the audit log alone."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult, GateVerdict
from evals.policy import GatePolicy
from evals.report import Measure, known_losses, measures
from evals.stats import Interval
from pipelines.recipes.product import Product
from pipelines.stages.release.bom import LIBRARIES
from pipelines.stages.release.front_matter import front_matter
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets
from pipelines.stages.release.origins import learned_from, table, terms_of_the_data
from pipelines.stages.release.uses import direct_use, limits, out_of_scope

_SCHEDULE = ("learning_rate", "scheduler", "steps", "batch_size", "accumulate", "warmup_steps", "weight_decay")
_SHOWN = ("base", "candidate")


def render_card(
    store: ArtifactStore,
    product: Product,
    model: ModelManifest,
    verdict: GateVerdict,
    bom: Digest,
    records: Sequence[AuditRecord],
) -> str:
    """Markdown with YAML front matter. ``bom`` names the model's bill of materials, so that who signs the card's
    difference signs that too; ``records`` of the audit log tell how long its training took. Equal inputs give equal
    bytes: no host, and no time but theirs."""
    base = store.get_manifest(model.base, BaseManifest)
    steps = checkpoints(store, model)
    heads = training_sets(model, steps)
    sets = datasets(store, heads)
    origins = [each for head in heads for each in learned_from(store, sets[head])]
    policy = store.get_manifest(verdict.policy, GatePolicy)
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    measured = measures(policy, results)
    line = list(sets.values())
    return (
        "\n\n".join(
            [
                front_matter(product, base, model, origins, line, measured),
                f"# Model Card for {product.name}\n\n{product.description}",
                _origin(model),
                f"## Model Details\n\n### Model Description\n\n{_described(base, model, line, bom)}",
                f"## Uses\n\n### Direct Use\n\n{direct_use(product)}",
                f"### Out-of-Scope Use\n\n{_listed(out_of_scope(store, product, model))}",
                "## Bias, Risks, and Limitations\n\n" + _listed([*limits(model, verdict, measured), *_biases(line)]),
                "## How to Get Started with the Model\n\nAsk it through the gateway, with a key of the tenant: "
                f'`assay ask {product.name} "..."`.',
                f"## Training Details\n\n### Training Data\n\n{terms_of_the_data(origins)}\n\n{_data(sets)}",
                f"### Training Procedure\n\n{_procedure(store, steps)}",
                f"## Evaluation\n\n### Testing Data, Factors & Metrics\n\n{_asked(product, policy, results)}",
                f"### Results\n\n{_gate(verdict, measured)}\n\n{_measured(measured)}",
                f"## Environmental Impact\n\n{_effort(store, steps, records)}",
                f"## Technical Specifications\n\n{_software(store, steps)}",
            ]
        )
        + "\n"
    )


def _origin(model: ModelManifest) -> str:
    if model.synthetic_share == 0:
        return "No training row is declared synthetic."
    return f"**Synthetic data:** {model.synthetic_share:.0%} of the training rows were generated, not collected."


def _described(base: BaseManifest, model: ModelManifest, line: Sequence[DatasetManifest], bom: Digest) -> str:
    rank = "" if model.rank is None else f", rank {model.rank}"
    return _listed(
        [
            f"base: {base.name} ({base.parameters:,} parameters, licence {base.licence}, from {base.source})",
            f"base digest: `{model.base}`",
            f"method: {model.method}{rank}",
            f"weights: `{model.weights}`",
            f"chat template: `{model.template}`",
            f"recipe: `{model.recipe}`",
            f"licences of the data: {', '.join(model.licences) or 'none named'}",
            f"bill of materials (CycloneDX): `{bom}`",
        ]
    )


def _biases(line: Iterable[DatasetManifest]) -> list[str]:
    """Of the classifier that took offensive answers out of the training rows."""
    filters: list[Any] = [each.facts["toxicity"] for each in line if each.facts.get("toxicity")]
    return [f"Rows were filtered by a classifier of known biases: {each['known_biases']}" for each in filters]


def _data(sets: dict[Digest, DatasetManifest]) -> str:
    rows = [
        [
            each.stage,
            f"{each.counts.rows_in:,}",
            f"{each.counts.rows_out:,}",
            ", ".join(f"{reason}: {rows}" for reason, rows in sorted(each.counts.dropped.items())) or "-",
            f"{each.synthetic_share:.0%}",
            f"`{digest}`",
        ]
        for digest, each in reversed(sets.items())
    ]
    return table(["stage", "rows in", "rows out", "dropped", "synthetic", "digest"], rows)


def _procedure(store: ArtifactStore, steps: Sequence[CheckpointManifest]) -> str:
    """What each stage was told and what it measured, in the order of training."""
    told: list[list[str]] = []
    for step in reversed(steps):
        recipe: dict[str, Any] = store.get_json(step.recipe)
        schedule = (recipe.get(step.stage) or {}).get("schedule", {})
        values = [f"{name} {schedule[name]}" for name in _SCHEDULE if name in schedule]
        general = [f"precision {recipe['precision']}", f"optimizer {recipe['optimizer']}", f"seed {recipe['seed']}"]
        told.append([step.stage, step.method, ", ".join(general + values), f"`{step.recipe}`"])
    rows = [
        [each.stage, each.method, str(each.step), name, f"{value:.4g}"]
        for each in reversed(steps)
        for name, value in sorted(each.metrics.items())
        if "@" not in name
    ]
    return (
        table(["stage", "method", "hyperparameters", "recipe"], told)
        + "\n\n"
        + table(["stage", "method", "step", "metric", "value"], rows)
    )


def _asked(product: Product, policy: GatePolicy, results: Mapping[str, EvalResult]) -> str:
    """The suites by edition, and how intervals are made."""
    editions = {result.suite: result.suite_digest for result in results.values()}
    rows = [[suite, f"`{digest}`"] for suite, digest in sorted(editions.items())]
    return (
        f"Suites of product {product.name}, asked of candidate, base and champion alike. All intervals are the gate's, "
        f"over clusters of items, at {policy.confidence:.0%}; gate policy `{policy.digest}`.\n\n"
        + table(["suite", "edition"], rows)
    )


def _gate(verdict: GateVerdict, measured: Sequence[Measure]) -> str:
    rows = [
        [
            each.name,
            f"{each.suite} / {each.metric}",
            str(each.n),
            each.baseline,
            f"{each.baseline_mean:.3f}",
            f"{each.candidate_mean:.3f}",
            f"{each.effect:+.3f} [{each.ci_low:+.3f}, {each.ci_high:+.3f}]",
            each.outcome,
        ]
        for each in verdict.criteria
    ]
    heads = ["criterion", "suite / metric", "n", "baseline", "its mean", "candidate", "difference [interval]"]
    told = f"Gate: **{verdict.decision}** ({verdict.reason})\n\n"
    if fell := [each for each in known_losses(measured) if each.fell("base")]:
        names = [
            f"{each.suite} / {each.metric} ({each.scores['base'].estimate:.3f} -> "
            f"{each.scores['candidate'].estimate:.3f})"
            for each in fell
        ]
        told += f"**Known losses** against the base, which no criterion gates: {', '.join(names)}\n\n"
    return told + table([*heads, "outcome"], rows)


def _measured(measured: Sequence[Measure]) -> str:
    """Beside the base alone, so that the next candidate's card has the same columns whoever is champion then."""
    rows = [
        [f"{each.suite} / {each.metric}", str(each.n), *(_interval(each.scores.get(name)) for name in _SHOWN)]
        for each in measured
    ]
    return table(["suite / metric", "n", *_SHOWN], rows)


def _interval(share: Interval | None) -> str:
    return "-" if share is None else f"{share.estimate:.3f} [{share.low:.3f}, {share.high:.3f}]"


def _effort(store: ArtifactStore, steps: Sequence[CheckpointManifest], records: Sequence[AuditRecord]) -> str:
    """Seconds of each stage as the audit log recorded them when its checkpoint was made."""
    made = [each.body for each in records if each.event == "checkpoint.recorded"]
    seconds = {str(body["checkpoint"]): body["seconds"] for body in reversed(made)}
    rows = [
        [
            each.stage,
            str(seconds.get(each.digest, "not recorded")),
            *(str(store.get_json(each.environment).get(name, "not recorded")) for name in ("device", "machine")),
        ]
        for each in reversed(steps)
    ]
    note = "Energy and emissions were not measured."
    return table(["stage", "seconds of training", "device", "machine"], rows) + f"\n\n{note}"


def _software(store: ArtifactStore, steps: Sequence[CheckpointManifest]) -> str:
    environment = {name: value for step in steps for name, value in store.get_json(step.environment).items()}
    named = [f"{name} {environment[name]}" for name in ("python", *LIBRARIES) if name in environment]
    return f"Trained with {', '.join(named)}."


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
