"""One row of each kind: exact copies (but for case and punctuation) go first, then near copies."""

from collections.abc import Iterable

from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data.near import jaccard, near_pairs, shingles, words
from pipelines.stages.data.rows import Dropped, Item, Outcome, load, step
from pipelines.stages.data.texts import asked, whole
from pipelines.stages.protocols import Parts, Row

_THRESHOLD = 0.8
_TIERS = ("gold", "silver", "bronze")


def deduplicated(parts: Parts, product: Product, scrubbed: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Of a set of copies the one of the best tier stays, then the least synthetic, then the first by content. Each
    dropped row names the one that stayed for it."""

    def work() -> Outcome:
        items = load(parts, scrubbed)
        entries = parts.ledger.entries(item.name for item in items)
        items.sort(key=lambda item: (_TIERS.index(entries[item.name].tier), entries[item.name].synthetic_depth))
        once, exact = _exact(items)
        kept, near = _near(once)
        return Outcome(kept, [*exact, *near])

    modules = [
        "pipelines.stages.data.deduplicate",
        "pipelines.stages.data.near",
        "pipelines.stages.data.texts",
    ]
    return step(parts, product, "deduplicated", modules, {"threshold": _THRESHOLD}, [scrubbed], work)


def _exact(items: Iterable[Item]) -> tuple[list[Item], list[Dropped]]:
    first: dict[str, Item] = {}
    dropped: list[Dropped] = []
    for item in items:
        survivor = first.setdefault(" ".join(words(whole(item.row))), item)
        if survivor is not item:
            dropped.append(Dropped(item, "exact-duplicate", f"says the same as {survivor.name}"))
    return list(first.values()), dropped


def _near(items: list[Item]) -> tuple[list[Item], list[Dropped]]:
    """Near copies of a row that stays: the question alike, and all that is said and offered alike."""
    copies: dict[int, int] = {}
    for left, right in near_pairs([asked(item.row) for item in items], _THRESHOLD):
        if left not in copies and right not in copies and _alike(items[left].row, items[right].row):
            copies[right] = left
    kept = [item for index, item in enumerate(items) if index not in copies]
    reasons = {index: f"says nearly the same as {items[leader].name}" for index, leader in copies.items()}
    return kept, [Dropped(items[index], "near-duplicate", reason) for index, reason in sorted(reasons.items())]


def _alike(one: Row, other: Row) -> bool:
    return jaccard(shingles(whole(one)), shingles(whole(other))) >= _THRESHOLD
