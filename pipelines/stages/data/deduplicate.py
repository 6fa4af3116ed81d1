"""One row of each kind: exact copies (but for case and punctuation) go out, near copies, and where the product asks for
it those that say the same in other words."""

from collections import Counter

from pydantic import JsonValue

from data_contracts.digests import Digest
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data.item import Dropped, Item
from pipelines.stages.data.meaning import Meaning
from pipelines.stages.data.near import copies
from pipelines.stages.data.rows import Outcome, Outlet, load, step
from pipelines.stages.data.texts import asked, reworded, whole
from pipelines.stages.protocols import Parts

THRESHOLD = 0.8
TIERS = ("gold", "silver", "bronze")
_TOLD = {"exact": "the same as", "near": "nearly the same as", "semantic": "in other words the same as"}


def deduplicated(parts: Parts, product: Product, scrubbed: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Of a set of copies the one of the best tier stays, then the least synthetic, then the oldest (rows without a date
    come last), then the first by content. Each dropped row names the one that stays for it. A near copy is alike in its
    question and in all that is said."""
    least = product.deduplicate.meaning

    def work(out: Outlet) -> Outcome:
        names: list[Digest] = []
        clusters: Counter[int] = Counter()
        with parts.datasets.spool() as ranked:
            for item in load(parts, scrubbed):
                ranked.add(item, _rank(item))
            said = ((whole(item.row), asked(item.row)) for item, _ in ranked)
            wordings = (reworded(item.row) for item, _ in ranked)
            meaning = Meaning(parts.embedder, least, wordings) if least else None
            for (item, _), copy in zip(ranked, copies(said, THRESHOLD, meaning), strict=True):
                names.append(item.name)
                if copy is None:
                    out.keep(item)
                else:
                    clusters[copy.survivor] += 1
                    alike = f" (similarity {copy.similarity:.3f})" if copy.how == "semantic" else ""
                    reason = f"says {_TOLD[copy.how]} {names[copy.survivor]}{alike}"
                    out.drop(Dropped(item, f"{copy.how}-duplicate", reason))
        sizes = Counter(copies_of_it + 1 for copies_of_it in clusters.values())
        return Outcome({"clusters": len(clusters), "cluster_sizes": {str(size): sizes[size] for size in sorted(sizes)}})

    modules = [
        "pipelines.stages.data.deduplicate",
        "pipelines.stages.data.meaning",
        "pipelines.stages.data.near",
        "pipelines.stages.data.texts",
        "pipelines.stages.data.wording",
    ]
    config: dict[str, JsonValue] = {"threshold": THRESHOLD}
    if least:
        config |= {"meaning": least, "embedder": parts.embedder.identity}
    return step(parts, product, "deduplicated", modules, config, [scrubbed], work)


def _rank(item: Item) -> str:
    """Sorts before another row's where this one is to stay; a row without a date behind those with one."""
    made = item.row.get("date") or "without"
    return f"{TIERS.index(item.origin.tier)} {item.origin.synthetic_depth:010} {made} {item.content}"
