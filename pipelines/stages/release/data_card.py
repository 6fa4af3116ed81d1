"""The card of a data set: a page that a person reads, and Croissant metadata. From manifests, and counts of the rows.

No row text: a label is named only where five people or more share it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

from data_contracts.digests import Digest, canonical_json, is_digest
from data_contracts.errors import BadInput, Missing
from data_contracts.manifests import CheckpointManifest, DatasetManifest
from data_contracts.store import ArtifactStore
from evals.plots import bars, histogram
from evals.templates import page
from pipelines.stages.data.item import Item
from pipelines.stages.data.rows import load
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.protocols import Parts
from pipelines.stages.release.croissant import croissant
from pipelines.stages.release.lineage import datasets
from pipelines.stages.release.markdown import as_html
from pipelines.stages.release.origins import learned_from, table, terms_of_the_data

_SHARED_BY = 5
_LABELS = 30
_LONGEST_LABEL = 60


def find_set(parts: Parts, name: str) -> Digest:
    """A data set by its digest or its beginning; by a product, what its last checkpoint was trained on. Raises
    `BadInput` for a beginning that several have, `Missing` for what is not there."""
    if is_digest(name):
        return name
    if name.startswith("sha256:"):
        found = sorted({manifest for _, manifest in parts.ledger.sets() if manifest.startswith(name)})
        if len(found) > 1:
            raise BadInput(f"{name} begins {len(found)} data sets: give more characters ({', '.join(found)})")
        if found:
            return found[0]
    trained = [r for r in parts.log.records() if r.event == "checkpoint.recorded" and r.product == name]
    if not trained:
        raise Missing(f"{name} is neither a data set (sha256:...) nor a product with a trained checkpoint")
    return parts.store.get_manifest(str(trained[-1].body["checkpoint"]), CheckpointManifest).datasets[0]


def write_data_card(parts: Parts, digest: Digest, folder: Path) -> Path:
    """``card.html``, which holds its plots, the same as ``card.md`` beside them, and ``croissant.json`` under
    ``folder``, which is made; the page's path. Reads the rows, and so refuses a data set that does not hold what its
    manifest names."""
    manifest = parts.store.get_manifest(digest, DatasetManifest)
    lengths: list[int] = []

    def measured() -> Iterator[Item]:
        for item in load(parts, manifest):
            lengths.append(len(asked(item.row)) + len(answered(item.row)))
            yield item

    shared, distinct = _shared_labels(measured())
    plots = {"lengths.svg": histogram(lengths, "characters of a row").svg("Characters of a row", _range(lengths))}
    pictures = "## Lengths\n\n![characters of a row](lengths.svg)"
    if shared:
        most = dict(list(shared.items())[:_LABELS])
        plots["labels.svg"] = bars(most, "rows").svg("Rows by label", _listed(most))
        told = f"{distinct:,} different labels, {len(shared):,} of which {_SHARED_BY} people or more share"
        pictures += f"\n\n## Labels\n\n{told}; the most common:\n\n![rows by label](labels.svg)"
    text = f"{data_card(parts.store, digest)}\n{pictures}\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, drawn in plots.items():
        (folder / name).write_text(drawn)
    (folder / "card.md").write_text(text)
    (folder / "croissant.json").write_bytes(canonical_json(croissant(parts, digest, manifest)) + b"\n")
    whole = folder / "card.html"
    whole.write_text(_html(f"{manifest.product}: {manifest.stage}", text, plots))
    return whole


def data_card(store: ArtifactStore, digest: Digest) -> str:
    """The card in Markdown without what only the rows tell (plots): from the manifests of the set and of those it was
    made from."""
    manifest = store.get_manifest(digest, DatasetManifest)
    line = list(reversed(datasets(store, [digest]).values()))
    facts = _facts(line)
    sections = [
        f"# {manifest.product}: {manifest.stage}",
        f"Data set `{digest}`, root `{manifest.root}`.",
        "\n".join(f"- {name}: {told}" for name, told in in_brief(store, digest)),
        f"## Terms of the data\n\n{terms_of_the_data(learned_from(store, manifest))}",
        _steps(line),
        _decisions(facts.get("decisions", [])),
        _toxicity(facts.get("toxicity")),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def in_brief(store: ArtifactStore, digest: Digest) -> list[tuple[str, str]]:
    """(what, told) of a data set and of all it was made from, in counts."""
    manifest = store.get_manifest(digest, DatasetManifest)
    line = list(reversed(datasets(store, [digest]).values()))
    facts = _facts(line)
    dropped = Counter[str]()
    for each in line:
        dropped.update(each.counts.dropped)
    copies = {how: dropped[f"{how}-duplicate"] for how in ("exact", "near", "semantic") if dropped[f"{how}-duplicate"]}
    sizes = ", ".join(f"{count:,} of {size}" for size, count in facts.get("cluster_sizes", {}).items())
    return [
        ("rows", f"{manifest.counts.rows_out:,}"),
        *((f"rows in `{name}`", f"{rows:,}") for name, rows in sorted(facts.get("rows", {}).items())),
        ("generated", f"{manifest.synthetic_share:.0%}, depth {facts.get('max_synthetic_depth', 'not told')} at most"),
        ("tiers", _listed(facts.get("tiers", {}))),
        ("licences", _listed(facts.get("licences", {}))),
        ("languages of the mixture", _listed(facts.get("languages", {}))),
        ("personal data and secrets replaced", _listed(facts.get("entities", {}))),
        *_canaries(facts),
        ("copies set aside", _listed(copies) + (f", in clusters: {sizes}" if sizes else "")),
        ("rows set aside for an evaluation item they hold", f"{dropped['contaminated']:,}"),
    ]


def _facts(line: Sequence[DatasetManifest]) -> dict[str, Any]:
    return {name: value for each in line for name, value in each.facts.items()}


def _shared_labels(items: Iterable[Item]) -> tuple[dict[str, int], int]:
    """Rows by label (or answer, without one) where enough people share it, and how many different ones there are."""
    subjects: defaultdict[str, set[str]] = defaultdict(set)
    labels: Counter[str] = Counter()
    for item in items:
        if item.row["kind"] == "sft":
            label = str(item.row.get("label") or answered(item.row))
            subjects[label].add(item.subject)
            labels[label] += 1
    shared = {
        label: rows
        for label, rows in labels.most_common()
        if len(subjects[label]) >= _SHARED_BY and len(label) <= _LONGEST_LABEL
    }
    return shared, len(labels)


def _range(lengths: Sequence[int]) -> str:
    if not lengths:
        return "no row"
    return f"from {min(lengths):,} to {max(lengths):,}, half of them up to {median_low(lengths):,}"


def _html(title: str, text: str, plots: Mapping[str, str]) -> str:
    """One file: the page with its plots in it; what a source or reason says is text there, never markup."""
    card = as_html(text)
    for name, drawn in plots.items():
        start = card.index(f'<p><img src="{name}"')
        end = card.index("</p>", start) + len("</p>")
        card = f'{card[:start]}<figure><div class="drawing">{drawn}</div></figure>{card[end:]}'
    return page("data-card.html.jinja", title=title, card=card)


def _canaries(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was planted, and what scrubbing left of it."""
    if "canaries" not in facts:
        return []
    found, learned = facts["canaries"], facts.get("learned_canaries")
    rows = f"; {len(learned['left']) + len(learned['removed']):,} are learned from" if learned else ""
    told = (
        f"{found['planted']:,}; scrubbing left {found['whole']:,} of {found['scrubbed']:,} secrets whole "
        f"({_listed(found['whole_by_form'])}){rows}"
    )
    return [("canaries planted", told)]


def _steps(line: Sequence[DatasetManifest]) -> str:
    rows = [
        [each.stage, f"{each.counts.rows_in:,}", f"{each.counts.rows_out:,}", _listed(each.counts.dropped)]
        for each in line
    ]
    return "## Steps\n\n" + table(["step", "rows in", "rows out", "set aside, and why"], rows)


def _decisions(decisions: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [each["source"], each["licence"], f"{each['rows']:,}", each["verdict"], f"{each['share']:g}", each["reason"]]
        for each in decisions
    ]
    heads = ["source", "licence", "rows", "decision", "share kept", "reason"]
    return "## Decisions of the policy\n\n" + table(heads, rows) if rows else ""


def _toxicity(filtered: Mapping[str, Any] | None) -> str:
    if not filtered:
        return ""
    return (
        f"## Answers that offend\n\nSet aside above a score of {filtered['max']:g}, from 0 to 1, by the classifier "
        f"`{filtered['by']}`.\n\n**Known biases.** {filtered['known_biases']}"
    )


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in sorted(counted.items())) or "-"
