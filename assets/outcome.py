"""How a manifest is shown: its digest as data version, whether it was a hit, counts and tables as Markdown. No rows."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import dagster as dg

from data_contracts.digests import hex_of
from data_contracts.frozen import Frozen

M = TypeVar("M", bound=Frozen)
Shown = dg.MetadataValue | str | int | float


def materialized(made: tuple[M, bool], metadata: Mapping[str, Shown] | None = None) -> dg.MaterializeResult[M]:
    """What an asset returns for ``(manifest, hit)``."""
    manifest, hit = made
    return dg.MaterializeResult(
        value=manifest,
        data_version=dg.DataVersion(hex_of(manifest.digest)),
        metadata={
            "manifest": manifest.digest,
            "hit": hit,
            **(metadata or {}),
            "content": dg.MetadataValue.json(manifest.payload()),
        },
    )


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue:
    lines = [header, ["---"] * len(header), *rows]
    return dg.MetadataValue.md("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))
