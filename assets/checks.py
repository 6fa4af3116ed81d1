"""What must hold of each data set before anything is built on it."""

import dagster as dg

from assets import data
from assets.outcome import table
from data_contracts.manifests import DatasetManifest
from pipelines.stages.data.integrity import check_dataset
from pipelines.wiring import Line


def whole_check(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="whole",
        blocking=True,
        description="In = out + quarantined; each name has its row, its key and a ledger entry.",
    )
    def whole(line: dg.ResourceParam[Line], manifest: DatasetManifest) -> dg.AssetCheckResult:
        problems = check_dataset(line, manifest)
        rows = [(problem.kind, problem.text) for problem in problems[:20]]
        return dg.AssetCheckResult(
            passed=not problems,
            description=problems[0].text if problems else "",
            metadata={"problems": len(problems), "first": table(("kind", "problem"), rows)},
        )

    return whole


def leak_check(asset: dg.AssetsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="leak_free",
        blocking=True,
        description="No person is both in training and in validation.",
    )
    def leak_free(line: dg.ResourceParam[Line], manifest: DatasetManifest) -> dg.AssetCheckResult:
        subjects: dict[str, set[str]] = {split: set() for split in manifest.parts}
        for item in line.datasets.read(manifest.root):
            subjects[item.row["split"]].add(item.subject)
        shared = subjects["train"] & subjects["validation"]
        return dg.AssetCheckResult(
            passed=not shared,
            metadata={split: len(found) for split, found in subjects.items()} | {"shared": len(shared)},
        )

    return leak_free


DATA_ASSETS = [
    data.raw,
    data.contracted,
    data.ledger,
    data.scrubbed,
    data.deduplicated,
    data.decontaminated,
    data.mixture,
    data.splits,
    data.preferences,
]
checks = [*map(whole_check, DATA_ASSETS), *map(leak_check, (data.splits, data.preferences))]
