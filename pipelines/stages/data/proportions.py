"""How much of a mixture each part makes up: a ceiling for every label, an exact share for replayed general data.

Which rows stay is drawn by their content and the product's seed, so that it is the same in every installation.
"""

from collections import Counter
from collections.abc import Sequence
from math import ceil

from data_contracts.errors import Refused
from pipelines.recipes.product import MixtureRule
from pipelines.stages.data.rows import Dropped, Item, draw


def in_proportion(
    rule: MixtureRule, seed: int, items: Sequence[Item], replayed: set[str]
) -> tuple[list[Item], list[Dropped]]:
    """The items (in their order) that the proportions leave, and those that they drop; ``replayed`` are names of
    items. Raises `Refused` where no choice of rows can keep them."""
    ordered = sorted(items, key=lambda item: draw(["proportions", seed], item.row))
    dropped = _over_ceiling(rule, [item for item in ordered if item.name not in replayed])
    out = {drop.item.name for drop in dropped}
    dropped += _over_replay(rule, [item for item in ordered if item.name not in out], replayed)
    out = {drop.item.name for drop in dropped}
    return [item for item in items if item.name not in out], dropped


def ceiling(counts: Sequence[int], share: float) -> int:
    """The most rows a label may have, so that none makes up more than ``share`` of what is left of all of them; 0 where
    there are too few labels for that."""
    for most in range(max(counts, default=0), 0, -1):
        if most <= share * sum(min(most, count) for count in counts) + 1e-9:
            return most
    return 0


def _over_ceiling(rule: MixtureRule, ordered: list[Item]) -> list[Dropped]:
    labelled = [item for item in ordered if "label" in item.row]
    if rule.max_label_share is None or not labelled:
        return []
    most = ceiling(list(Counter(item.row["label"] for item in labelled).values()), rule.max_label_share)
    if most == 0:
        labels = len({item.row["label"] for item in labelled})
        raise Refused(
            f"mixture: max_label_share {rule.max_label_share:g} cannot be kept with {labels} labels: allow at least "
            f"{ceil(1000 / labels) / 1000:g}, or add rows of other labels"
        )
    seen: Counter[str] = Counter()
    dropped = []
    for item in labelled:
        seen[item.row["label"]] += 1
        if seen[item.row["label"]] > most:
            reason = f"its label has {most} rows already, max_label_share is {rule.max_label_share:g}"
            dropped.append(Dropped(item, "label-share", reason))
    return dropped


def _over_replay(rule: MixtureRule, ordered: list[Item], replayed: set[str]) -> list[Dropped]:
    again = [item for item in ordered if item.name in replayed]
    if not again and not rule.replay_share:
        return []
    wanted = round(rule.replay_share / (1 - rule.replay_share) * (len(ordered) - len(again)))
    if len(again) < wanted:
        raise Refused(
            f"mixture: replay_share {rule.replay_share:g} needs {wanted} rows of replay sources and {len(again)} are "
            "left: add general data, or lower the share"
        )
    reason = f"replay_share {rule.replay_share:g} is reached with {wanted} rows"
    return [Dropped(item, "replay-share", reason) for item in again[wanted:]]
