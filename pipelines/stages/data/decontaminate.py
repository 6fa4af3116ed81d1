"""No item of a suite in training: rows that share a run of words with one, or the whole of a short one, go out."""

from collections.abc import Iterator, Mapping

from data_contracts.digests import sha256_json
from data_contracts.manifests import DatasetManifest
from evals.suite import protected_texts
from pipelines.recipes.product import Product
from pipelines.stages.data.near import words
from pipelines.stages.data.rows import Dropped, Item, Outcome, load, step
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.protocols import Parts

_RUN = 8


def decontaminated(parts: Parts, product: Product, deduplicated: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Rows that share no run of eight words (nor a whole shorter text) with any item of the product's suites."""
    protected = protected_texts(product)

    def work() -> Outcome:
        items = _index(protected)
        kept: list[Item] = []
        dropped: list[Dropped] = []
        for item in load(parts, deduplicated):
            hit = next((items[run] for run in _runs(item) if run in items), None)
            if hit is None:
                kept.append(item)
            else:
                dropped.append(Dropped(item, "contaminated", f"overlaps with the evaluation item {hit}"))
        return Outcome(kept, dropped, facts={"protected_items": len(protected)})

    modules = ["pipelines.stages.data.decontaminate", "pipelines.stages.data.near", "pipelines.stages.data.texts"]
    config = {"run": _RUN, "protected": sha256_json(protected)}
    return step(parts, product, "decontaminated", modules, config, [deduplicated], work)


def _index(protected: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Every run of eight words of an item -> the item; a shorter item is one run, found only as a whole text."""
    index: dict[tuple[str, ...], str] = {}
    for name, text in sorted(protected.items()):
        for run in _grams(words(text)):
            index.setdefault(run, name)
    return index


def _runs(item: Item) -> Iterator[tuple[str, ...]]:
    for text in (asked(item.row), answered(item.row)):
        for line in (text, *text.splitlines()):
            yield from _grams(words(line))


def _grams(found: list[str]) -> Iterator[tuple[str, ...]]:
    if len(found) < _RUN:
        yield tuple(found)
    for start in range(len(found) - _RUN + 1):
        yield tuple(found[start : start + _RUN])
