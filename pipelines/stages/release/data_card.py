"""The card of a data set: a page that a person reads, and Croissant metadata. From manifests, and counts of the rows.

No row text: a label is named only where five people or more share it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_contracts.digests import Digest, canonical_json, hex_of, is_digest
from data_contracts.errors import BadInput, Missing
from data_contracts.manifests import CheckpointManifest, DatasetManifest
from evals.plots import bars, histogram
from pipelines.stages.data.rows import load
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.protocols import Parts
from pipelines.stages.release.card import learned_from, table, terms_of_the_data
from pipelines.stages.release.lineage import datasets

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
    """``card.md``, its plots and ``croissant.json`` under ``folder``, which is made; the page's path. Reads the rows,
    and so refuses a data set that does not hold what its manifest names."""
    manifest = parts.store.get_manifest(digest, DatasetManifest)
    items = list(load(parts, manifest))
    subjects: defaultdict[str, set[str]] = defaultdict(set)
    labels: Counter[str] = Counter()
    for item in items:
        if item.row["kind"] == "sft":
            label = answered(item.row)
            subjects[label].add(item.subject)
            labels[label] += 1
    shared = {
        label: rows
        for label, rows in labels.most_common()
        if len(subjects[label]) >= _SHARED_BY and len(label) <= _LONGEST_LABEL
    }
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [len(asked(item.row)) + len(answered(item.row)) for item in items]
    (folder / "lengths.svg").write_text(histogram(lengths, "characters of a row").svg())
    if shared:
        most = dict(list(shared.items())[:_LABELS])
        (folder / "labels.svg").write_text(bars(most, "rows").svg())
    page = folder / "card.md"
    page.write_text(_page(parts, digest, manifest, shared, len(labels)))
    (folder / "croissant.json").write_bytes(canonical_json(croissant(parts, digest, manifest)) + b"\n")
    return page


def _page(parts: Parts, digest: Digest, manifest: DatasetManifest, labels: Mapping[str, int], distinct: int) -> str:
    line = list(reversed(datasets(parts.store, [digest]).values()))
    facts: dict[str, Any] = {name: value for each in line for name, value in each.facts.items()}
    tiers = facts.get("tiers", {})
    parts_of_the_page = [
        f"# {manifest.product}: {manifest.stage}",
        f"Data set `{digest}`, root `{manifest.root}`.",
        "\n".join(
            [
                f"- rows: {manifest.counts.rows_out:,}",
                f"- generated: {manifest.synthetic_share:.0%}",
                f"- tiers: {_listed(tiers)}",
                f"- licences: {_listed(facts.get('licences', {}))}",
                f"- personal data and secrets replaced: {_listed(facts.get('entities', {}))}",
                *(f"- rows in `{name}`: {rows:,}" for name, rows in sorted(facts.get("rows", {}).items())),
            ]
        ),
        terms_of_the_data(learned_from(parts.store, manifest)),
        _steps(line),
        _decisions(facts.get("decisions", [])),
        "## Lengths\n\n![characters of a row](lengths.svg)",
        _labels(labels, distinct),
    ]
    return "\n\n".join(part for part in parts_of_the_page if part) + "\n"


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


def _labels(labels: Mapping[str, int], distinct: int) -> str:
    if not labels:
        return ""
    told = (
        f"{distinct:,} different answers, {len(labels):,} of which {_SHARED_BY} people or more share; the most common:"
    )
    return f"## Labels\n\n{told}\n\n![rows by answer](labels.svg)"


def _listed(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {rows:,}" for name, rows in sorted(counted.items())) or "-"


def croissant(parts: Parts, digest: Digest, manifest: DatasetManifest) -> dict[str, JsonValue]:
    """Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html) of a data set's shards."""
    licences = sorted({origin.licence for origin in learned_from(parts.store, manifest)})
    fields = ("name", "subject", "row")
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"{manifest.product}-{manifest.stage}",
        "description": f"{manifest.counts.rows_out} rows of the step {manifest.stage} of {manifest.product}",
        "version": "1.0.0",
        "identifier": digest,
        "license": [_licence_url(licence) for licence in licences],
        "isBasedOn": [source.url for source in manifest.sources],
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": "shards",
                "name": "shards",
                "encodingFormat": "application/x-parquet",
                "includes": f"rows/{hex_of(manifest.root)}/rows-*.parquet",
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"rows/{field}",
                        "name": field,
                        "dataType": "sc:Text",
                        "source": {"fileSet": {"@id": "shards"}, "extract": {"column": field}},
                    }
                    for field in fields
                ],
            }
        ],
    }


def _licence_url(licence: str) -> str:
    return f"https://spdx.org/licenses/{licence}" if licence.replace("-", "").replace(".", "").isalnum() else licence


_CONTEXT: dict[str, JsonValue] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
