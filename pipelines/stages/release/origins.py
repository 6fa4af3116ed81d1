"""Where the rows that a model learned from came from, under which terms, and what follows for the model."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from data_contracts.contract import DataContract, Terms
from data_contracts.licences import duties, restricts, vendor_terms
from data_contracts.manifests import BaseManifest, DatasetManifest
from data_contracts.store import ArtifactStore


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


def narrows(origins: Sequence[Origin]) -> bool:
    """Whether the data narrow what the model may be used for."""
    return restricts((each.licence for each in origins), (each.terms for each in origins))


def licence_of(base: BaseManifest, origins: Sequence[Origin]) -> str:
    """The licence under which the model stands: the base's, or a name that says that the data's terms come to it."""
    licence = base.licence.lower()
    return f"{licence}-with-terms-of-the-data" if narrows(origins) else licence


def asked_by(origin: Origin) -> list[str]:
    """What a source asks of those who use what was learned from it."""
    terms = origin.terms
    return [
        *duties(origin.licence),
        *vendor_terms(terms),
        *([f"collected in {terms.region}"] if terms.region else []),
        *([f"regulated ({terms.regulated}), signed off by {terms.signOff}"] if terms.regulated else []),
    ]


def terms_of_the_data(origins: Iterable[Origin]) -> str:
    """Under which terms the model learned, source by source, and what they ask of those who use it (Markdown)."""
    rows = [[each.source, each.licence, f"{each.rows:,}", "; ".join(asked_by(each)) or "-"] for each in origins]
    return table(["source", "licence", "rows", "what it asks"], rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
