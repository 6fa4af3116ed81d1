"""One row of each kind: exact copies (but for case and punctuation) go out, and near copies."""

from collections.abc import Iterator

from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data.near import copies
from pipelines.stages.data.rows import Dropped, Outcome, load, step
from pipelines.stages.data.texts import asked, whole
from pipelines.stages.protocols import Parts

THRESHOLD = 0.8
TIERS = ("gold", "silver", "bronze")


def deduplicated(parts: Parts, product: Product, scrubbed: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Of a set of copies the one of the best tier stays, then the least synthetic, then the first by content. Each
    dropped row names the one that stays for it. A near copy is alike in its question and in all that is said."""

    def work() -> Outcome:
        items = load(parts, scrubbed)
        entries = parts.ledger.entries(item.name for item in items)
        items.sort(key=lambda item: (TIERS.index(entries[item.name].tier), entries[item.name].synthetic_depth))
        found = list(copies(((whole(item.row), asked(item.row)) for item in items), THRESHOLD))
        kept = [item for item, copy in zip(items, found, strict=True) if copy is None]
        survivors = {copy.survivor for copy in found if copy is not None}

        def dropped() -> Iterator[Dropped]:
            for item, copy in zip(items, found, strict=True):
                if copy is not None:
                    code, told = ("exact", "the same") if copy.exact else ("near", "nearly the same")
                    yield Dropped(item, f"{code}-duplicate", f"says {told} as {items[copy.survivor].name}")

        return Outcome(kept, list(dropped()), facts={"clusters": len(survivors)})

    modules = [
        "pipelines.stages.data.deduplicate",
        "pipelines.stages.data.near",
        "pipelines.stages.data.texts",
    ]
    return step(parts, product, "deduplicated", modules, {"threshold": THRESHOLD}, [scrubbed], work)
