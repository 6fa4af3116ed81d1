"""The model card: Hugging Face's README.md with front matter, made from manifests and the gate's verdict alone."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import yaml

from data_contracts.contract import DataContract, Terms
from data_contracts.digests import Digest
from data_contracts.licences import duties, restricts, vendor_terms
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import GateVerdict
from pipelines.recipes.product import Product
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets


def render_card(store: ArtifactStore, product: Product, model: ModelManifest, verdict: GateVerdict) -> str:
    """Markdown with YAML front matter. Equal manifests give equal bytes: no time, no host."""
    base = store.get_manifest(model.base, BaseManifest)
    steps = checkpoints(store, model)
    heads = training_sets(model, steps)
    sets = datasets(store, heads)
    origins = [each for head in heads for each in learned_from(store, sets[head])]
    return (
        "\n\n".join(
            [
                _front_matter(base, model, origins),
                f"# {product.name}\n\n{product.description}",
                _origin(model),
                _base(base, model),
                terms_of_the_data(origins),
                _data(sets),
                _training(reversed(steps)),
                _gate(verdict),
                _limits(product, model),
            ]
        )
        + "\n"
    )


def diff_cards(champion: str, candidate: str) -> str:
    """Unified diff from the champion's card (empty: there is no champion) to the candidate's."""
    lines = difflib.unified_diff(
        champion.splitlines(keepends=True), candidate.splitlines(keepends=True), "champion", "candidate"
    )
    return "".join(lines)


class Origin(NamedTuple):
    """Rows of one source under one licence, with the terms of their contract."""

    source: str
    licence: str
    rows: int
    terms: Terms


def learned_from(store: ArtifactStore, data: DatasetManifest) -> list[Origin]:
    """Where the rows of a data set came from, by source and licence."""
    counted: Any = data.facts["origins"]
    return [
        Origin(each["source"], each["licence"], each["rows"], store.get_manifest(each["contract"], DataContract).terms)
        for each in counted
    ]


def terms_of_the_data(origins: Iterable[Origin]) -> str:
    """Under which terms the model learned, source by source, and what they ask of those who use it."""
    rows = [
        [
            origin.source,
            origin.licence,
            f"{origin.rows:,}",
            "; ".join([*duties(origin.licence), *vendor_terms(origin.terms), *_circumstances(origin.terms)]) or "-",
        ]
        for origin in origins
    ]
    return "## Terms of the data\n\n" + table(["source", "licence", "rows", "what it asks"], rows)


def _circumstances(terms: Terms) -> list[str]:
    return [
        *([f"collected in {terms.region}"] if terms.region else []),
        *([f"regulated ({terms.regulated}), signed off by {terms.signOff}"] if terms.regulated else []),
    ]


def _front_matter(base: BaseManifest, model: ModelManifest, origins: Sequence[Origin]) -> str:
    narrowed = restricts((each.licence for each in origins), (each.terms for each in origins))
    fields = {
        "base_model": base.name,
        "library_name": "transformers" if model.method == "full" else "peft",
        "license": "other" if narrowed else base.licence.lower(),
        **({"license_name": f"{base.licence.lower()}-with-terms-of-the-data"} if narrowed else {}),
        "pipeline_tag": "text-generation",
        "tags": ["assay", model.method, *(["synthetic-data"] if model.synthetic_share else [])],
    }
    return "---\n" + yaml.safe_dump(fields, sort_keys=True) + "---"


def _origin(model: ModelManifest) -> str:
    if model.synthetic_share == 0:
        return "No training row is declared synthetic."
    return f"**Synthetic data:** {model.synthetic_share:.0%} of the training rows were generated, not collected."


def _base(base: BaseManifest, model: ModelManifest) -> str:
    rank = "" if model.rank is None else f", rank {model.rank}"
    return "\n".join(
        [
            "## Model",
            "",
            f"- base: {base.name} ({base.parameters:,} parameters, licence {base.licence}, from {base.source})",
            f"- base digest: `{model.base}`",
            f"- method: {model.method}{rank}",
            f"- weights: `{model.weights}`",
            f"- chat template: `{model.template}`",
            f"- recipe: `{model.recipe}`",
            f"- licences of the data: {', '.join(model.licences) or 'none named'}",
        ]
    )


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
    return "## Data\n\n" + table(["stage", "rows in", "rows out", "dropped", "synthetic", "digest"], rows)


def _training(steps: Iterable[CheckpointManifest]) -> str:
    rows = [
        [each.stage, each.method, str(each.step), name, f"{value:.4g}"]
        for each in steps
        for name, value in sorted(each.metrics.items())
    ]
    return "## Training\n\n" + table(["stage", "method", "step", "metric", "value"], rows)


def _gate(verdict: GateVerdict) -> str:
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
    heads = [
        "criterion",
        "suite / metric",
        "n",
        "baseline",
        "its mean",
        "candidate",
        "difference [interval]",
        "outcome",
    ]
    return f"## Evaluation\n\nGate: **{verdict.decision}** ({verdict.reason})\n\n" + table(heads, rows)


def _limits(product: Product, model: ModelManifest) -> str:
    lines = [
        "## Limits",
        "",
        f"- Made for the purpose `{product.purpose}` of tenant `{product.tenant}`; nothing else was evaluated.",
        "- Answers were evaluated with this chat template and these answer lengths only.",
    ]
    if model.synthetic_share:
        lines.append("- Generated training rows do not show how real people write: expect less on real messages.")
    return "\n".join(lines)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
