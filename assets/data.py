"""Raw rows -> contract -> ledger -> scrub -> deduplicate -> decontaminate -> mixture -> splits and preferences."""

import dagster as dg

from assets.groups import asset_in
from assets.outcome import materialized, table
from data_contracts.manifests import DatasetManifest
from pipelines.stages.data import steps
from pipelines.stages.release.data_card import data_card
from pipelines.wiring import Line

data_asset = asset_in("data", "pipelines/stages/data", "data_contracts")
FROM_DATA = dg.AssetIn(key_prefix="data")
Result = dg.MaterializeResult[DatasetManifest]


def shown(made: tuple[DatasetManifest, bool], card: str = "") -> Result:
    """A data set with its counts: what came in, what went out, what lies in quarantine and why; or with its card."""
    counts = made[0].counts
    rows = [
        ("in", counts.rows_in),
        ("out", counts.rows_out),
        *((f"quarantined: {k}", v) for k, v in counts.dropped.items()),
    ]
    return materialized(
        made,
        {
            "dagster/row_count": counts.rows_out,
            "rows": table(("rows", "count"), rows),
            "root": made[0].root,
            "synthetic_share": made[0].synthetic_share,
            **({"card": dg.MetadataValue.md(card)} if card else {}),
        },
    )


@data_asset(kinds={"python", "parquet"})
def raw(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line]) -> Result:
    """Rows of the product's sources as they were read, each named by its subject's key."""
    return shown(steps.raw(line, line.product(context.partition_key)))


@data_asset(ins={"raw": FROM_DATA}, kinds={"odcs", "parquet"})
def contracted(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], raw: DatasetManifest) -> Result:
    """Rows that keep their data contract; the others lie in quarantine with the broken rule."""
    return shown(steps.contracted(line, line.product(context.partition_key), raw))


@data_asset(ins={"contracted": FROM_DATA}, kinds={"sqlite", "parquet"})
def ledger(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], contracted: DatasetManifest) -> Result:
    """Rows with a provenance entry each, and allowed by licence, consent, purpose and retention."""
    return shown(steps.ledgered(line, line.product(context.partition_key), contracted))


@data_asset(ins={"ledger": FROM_DATA}, kinds={"presidio", "parquet"})
def scrubbed(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], ledger: DatasetManifest) -> Result:
    """Rows without personal data and secrets: found by Presidio and patterns, replaced by made-up values."""
    return shown(steps.scrubbed(line, line.product(context.partition_key), ledger))


@data_asset(ins={"scrubbed": FROM_DATA}, kinds={"python", "parquet"})
def deduplicated(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], scrubbed: DatasetManifest) -> Result:
    """Rows without exact and near (MinHash) duplicates."""
    return shown(steps.deduplicated(line, line.product(context.partition_key), scrubbed))


@data_asset(ins={"deduplicated": FROM_DATA}, kinds={"python", "parquet"})
def decontaminated(
    context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], deduplicated: DatasetManifest
) -> Result:
    """Rows that share no content with the evaluation suites."""
    return shown(steps.decontaminated(line, line.product(context.partition_key), deduplicated))


@data_asset(ins={"decontaminated": FROM_DATA}, kinds={"python", "parquet"})
def mixture(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], decontaminated: DatasetManifest) -> Result:
    """Rows kept by retention, weights, shares and human floor, whose answers do not offend."""
    made = steps.mixture(line, line.product(context.partition_key), decontaminated)
    return shown(made, data_card(line.store, made[0].digest))


@data_asset(ins={"mixture": FROM_DATA}, kinds={"python", "parquet"})
def splits(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], mixture: DatasetManifest) -> Result:
    """Training and validation rows; no subject and no near duplicate is on both sides."""
    made = steps.splits(line, line.product(context.partition_key), mixture)
    return shown(made, data_card(line.store, made[0].digest))


@data_asset(ins={"mixture": FROM_DATA}, kinds={"python", "parquet"})
def preferences(context: dg.AssetExecutionContext, line: dg.ResourceParam[Line], mixture: DatasetManifest) -> Result:
    """Preference pairs, split the same way."""
    made = steps.preferences(line, line.product(context.partition_key), mixture)
    return shown(made, data_card(line.store, made[0].digest))
