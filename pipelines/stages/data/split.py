"""Train and validation without a leak: rows of one person, of one template or of nearly one wording stay together."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from data_contracts.digests import Digest, merkle_root
from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data.batches import batched
from pipelines.stages.data.canaries import CANARY_MODULES, Watch
from pipelines.stages.data.item import Item
from pipelines.stages.data.near import groups, near_pairs
from pipelines.stages.data.rows import Outcome, Outlet, derive, draw, load, step
from pipelines.stages.data.texts import asked
from pipelines.stages.protocols import Parts

_THRESHOLD = 0.5
_SPLITS = ("train", "validation")


def splits(parts: Parts, product: Product, mixture: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """The conversations to learn from, each with its split. ``parts`` of the manifest are the roots of the splits."""
    return _split(parts, product, mixture, "splits", "sft")


def preferences(parts: Parts, product: Product, mixture: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """The preference pairs, each with its split, under the same grouping as the conversations. A product that has no
    source of them learns without: it is given the conversations."""
    if not any(source.kind == "preference" for source in product.sources):
        return splits(parts, product, mixture)
    return _split(parts, product, mixture, "preferences", "preference")


def _split(
    parts: Parts, product: Product, mixture: DatasetManifest, stage: str, kind: Literal["sft", "preference"]
) -> tuple[DatasetManifest, bool]:
    def work(out: Outlet) -> Outcome:
        names: dict[str, list[Digest]] = {each: [] for each in _SPLITS}
        watch = Watch(product)
        with parts.datasets.spool() as spool:
            for item in load(parts, mixture):
                spool.add(item, item.content)
            assigned = _assign(product, (item for item, _ in spool), watch)
            mine = ((item, split) for (item, _), split in zip(spool, assigned, strict=True) if item.row["kind"] == kind)
            for some in batched(mine):
                rows = [item.row | {"split": split} for item, split in some]
                for item, (_, split) in zip(derive(parts, [item for item, _ in some], rows), some, strict=True):
                    names[split].append(item.name)
                    out.keep(item)
        if missing := [split for split, found in names.items() if not found]:
            raise Refused(
                f"{product.name}: no {kind} row falls into {missing[0]}: add sources of that kind, or rows that are "
                "not all of one person, template or wording"
            )
        roots = {split: merkle_root(found) for split, found in names.items()}
        rows_of: dict[str, Any] = {"rows": {split: len(found) for split, found in names.items()}}
        return Outcome(rows_of | (watch.learned() if kind == "sft" else {}), parts=roots)

    modules = ["pipelines.stages.data.split", "pipelines.stages.data.near", "pipelines.stages.data.texts"]
    modules += CANARY_MODULES
    config = {"split": product.split.payload(), "threshold": _THRESHOLD}
    return step(parts, product, stage, modules, config, [mixture], work)


class _Placed(NamedTuple):
    """A row as far as its split is concerned."""

    subject: str
    group: str | None
    content: Digest
    kind: str
    canary: bool


def _assign(product: Product, items: Iterable[Item], watch: Watch) -> list[str]:
    """The split of each row. A group is drawn by its first content and the seed, so that new rows move no old group;
    where the draw leaves a kind without validation rows, its group with the lowest draw goes there. Canaries are always
    learned: of one that was held out nothing could be measured."""
    rows: list[_Placed] = []

    def texts() -> Iterator[str]:
        for item in items:
            row = item.row
            rows.append(_Placed(item.subject, row["group"], item.content, row["kind"], watch.see(item)))
            yield asked(row)

    links = list(near_pairs(texts(), _THRESHOLD))
    together: defaultdict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        together[f"subject {row.subject}"].append(index)
        if row.group:
            together[f"group {row.group}"].append(index)
    links += [(members[0], other) for members in together.values() for other in members[1:]]
    leaders = groups(len(rows), links)
    drawn = {leader: draw(("split", product.split.seed), rows[leader].content) for leader in set(leaders)}
    learned = {leader for leader, row in zip(leaders, rows, strict=True) if row.canary}
    held_out = {leader for leader, number in drawn.items() if number < product.split.validation} - learned
    for kind in ("sft", "preference"):
        mine = {leader for leader, row in zip(leaders, rows, strict=True) if row.kind == kind} - learned
        if mine and not mine & held_out:
            held_out.add(min(mine, key=lambda leader: drawn[leader]))
    return ["validation" if leader in held_out else "train" for leader in leaders]
