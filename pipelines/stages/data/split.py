"""Train and validation without a leak: rows of one person, of one template or of nearly one wording stay together."""

from collections import defaultdict
from typing import Literal

from data_contracts.digests import merkle_root
from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data.near import groups, near_pairs
from pipelines.stages.data.rows import Item, Outcome, derive, draw, load, step
from pipelines.stages.data.texts import asked
from pipelines.stages.protocols import Parts

_THRESHOLD = 0.5
_SPLITS = ("train", "validation")


def splits(parts: Parts, product: Product, mixture: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """The conversations to learn from, each with its split. ``parts`` of the manifest are the roots of the splits."""
    return _split(parts, product, mixture, "splits", "sft")


def preferences(parts: Parts, product: Product, mixture: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """The preference pairs, each with its split, under the same grouping as the conversations."""
    return _split(parts, product, mixture, "preferences", "preference")


def _split(
    parts: Parts, product: Product, mixture: DatasetManifest, stage: str, kind: Literal["sft", "preference"]
) -> tuple[DatasetManifest, bool]:
    def work() -> Outcome:
        items = load(parts, mixture)
        assigned = _assign(product, items)
        mine = [(item, split) for item, split in zip(items, assigned, strict=True) if item.row["kind"] == kind]
        old = [item for item, _ in mine]
        kept = derive(parts, old, [item.row | {"split": split} for item, split in mine])
        if missing := [each for each in _SPLITS if each not in {split for _, split in mine}]:
            raise Refused(
                f"{product.name}: no {kind} row falls into {missing[0]}: add sources of that kind, or rows that are "
                "not all of one person, template or wording"
            )
        roots = {each: merkle_root(item.name for item in kept if item.row["split"] == each) for each in _SPLITS}
        sizes = {each: sum(item.row["split"] == each for item in kept) for each in _SPLITS}
        return Outcome(kept, parts=roots, facts={"rows": {**sizes}})

    modules = ["pipelines.stages.data.split", "pipelines.stages.data.near", "pipelines.stages.data.texts"]
    config = {"split": product.split.payload(), "threshold": _THRESHOLD}
    return step(parts, product, stage, modules, config, [mixture], work)


def _assign(product: Product, items: list[Item]) -> list[str]:
    """The split of each row. A group is drawn by its first content and the seed, so that new rows move no old group;
    where the draw leaves a kind without validation rows, its group with the lowest draw goes there."""
    together: defaultdict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        together[f"subject {item.subject}"].append(index)
        if item.row["group"]:
            together[f"group {item.row['group']}"].append(index)
    links = [(members[0], other) for members in together.values() for other in members[1:]]
    links += near_pairs([asked(item.row) for item in items], _THRESHOLD)
    leaders = groups(len(items), links)
    drawn = {leader: draw(["split", product.split.seed], items[leader].row) for leader in set(leaders)}
    held_out = {leader for leader, number in drawn.items() if number < product.split.validation}
    for kind in ("sft", "preference"):
        mine = {leader for leader, item in zip(leaders, items, strict=True) if item.row["kind"] == kind}
        if mine and not mine & held_out:
            held_out.add(min(mine, key=lambda leader: drawn[leader]))
    return ["validation" if leader in held_out else "train" for leader in leaders]
