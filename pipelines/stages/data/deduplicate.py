"""One row of each kind: exact copies (but for case and punctuation) go out, and near copies."""

from data_contracts.digests import Digest
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data.item import Dropped, Item
from pipelines.stages.data.near import copies
from pipelines.stages.data.rows import Outcome, Outlet, load, step
from pipelines.stages.data.texts import asked, whole
from pipelines.stages.protocols import Parts

THRESHOLD = 0.8
TIERS = ("gold", "silver", "bronze")


def deduplicated(parts: Parts, product: Product, scrubbed: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Of a set of copies the one of the best tier stays, then the least synthetic, then the first by content. Each
    dropped row names the one that stays for it. A near copy is alike in its question and in all that is said."""

    def work(out: Outlet) -> Outcome:
        names: list[Digest] = []
        survivors: set[int] = set()
        with parts.datasets.spool() as ranked:
            for item in load(parts, scrubbed):
                ranked.add(item, _rank(item))
            texts = ((whole(item.row), asked(item.row)) for item, _ in ranked)
            for (item, _), copy in zip(ranked, copies(texts, THRESHOLD), strict=True):
                names.append(item.name)
                if copy is None:
                    out.keep(item)
                else:
                    survivors.add(copy.survivor)
                    code, told = ("exact", "the same") if copy.exact else ("near", "nearly the same")
                    out.drop(Dropped(item, f"{code}-duplicate", f"says {told} as {names[copy.survivor]}"))
        return Outcome({"clusters": len(survivors)})

    modules = [
        "pipelines.stages.data.deduplicate",
        "pipelines.stages.data.near",
        "pipelines.stages.data.texts",
    ]
    return step(parts, product, "deduplicated", modules, {"threshold": THRESHOLD}, [scrubbed], work)


def _rank(item: Item) -> str:
    """Sorts before another row's where this one is to stay."""
    return f"{TIERS.index(item.origin.tier)} {item.origin.synthetic_depth:010} {item.content}"
