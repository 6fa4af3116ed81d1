"""How much of a mixture each part makes up: a ceiling for every label, an exact share for replayed general data.

Which rows stay is drawn by their content and the product's seed, so that it is the same in every installation.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from math import ceil
from typing import NamedTuple

from data_contracts.digests import Digest
from data_contracts.errors import Refused
from pipelines.recipes.product import MixtureRule
from pipelines.stages.data.rows import draw


class Candidate(NamedTuple):
    """A row as far as proportions are concerned."""

    name: Digest
    content: Digest
    kind: str
    label: str | None
    replayed: bool


def in_proportion(
    rule: MixtureRule, seed: int, replayed_kinds: Collection[str], rows: Iterable[Candidate]
) -> dict[Digest, tuple[str, str]]:
    """Name -> (code, reason) of the rows that the proportions leave out. ``replayed_kinds`` are those of the replay
    sources: a trainer sees rows of one kind, so that the share is one of these. Raises `Refused` where no choice of
    rows can keep the proportions."""
    ordered = sorted(rows, key=lambda row: draw(("proportions", seed), row.content))
    dropped = _over_ceiling(rule, [row for row in ordered if not row.replayed])
    for kind in sorted(replayed_kinds):
        dropped |= _over_replay(rule, [row for row in ordered if row.kind == kind and row.name not in dropped])
    return dropped


def ceiling(counts: Sequence[int], share: float) -> int:
    """The most rows a label may have, so that none makes up more than ``share`` of what is left of all of them; 0 where
    there are too few labels for that."""
    for most in range(max(counts, default=0), 0, -1):
        if most <= share * sum(min(most, count) for count in counts) + 1e-9:
            return most
    return 0


def _over_ceiling(rule: MixtureRule, ordered: list[Candidate]) -> dict[Digest, tuple[str, str]]:
    labels = Counter(row.label for row in ordered if row.label is not None)
    if rule.max_label_share is None or not labels:
        return {}
    most = ceiling(list(labels.values()), rule.max_label_share)
    if most == 0:
        raise Refused(
            f"mixture: max_label_share {rule.max_label_share:g} cannot be kept with {len(labels)} labels: allow at "
            f"least {ceil(1000 / len(labels)) / 1000:g}, or add rows of other labels"
        )
    reason = f"its label has {most} rows already, max_label_share is {rule.max_label_share:g}"
    seen: Counter[str] = Counter()
    dropped = {}
    for row in ordered:
        if row.label is not None:
            seen[row.label] += 1
            if seen[row.label] > most:
                dropped[row.name] = ("label-share", reason)
    return dropped


def _over_replay(rule: MixtureRule, ordered: list[Candidate]) -> dict[Digest, tuple[str, str]]:
    again = [row for row in ordered if row.replayed]
    wanted = round(rule.replay_share / (1 - rule.replay_share) * (len(ordered) - len(again)))
    if len(again) < wanted:
        raise Refused(
            f"mixture: replay_share {rule.replay_share:g} needs {wanted} rows of replay sources and {len(again)} are "
            "left: add general data, or lower the share"
        )
    return {
        row.name: ("replay-share", f"replay_share {rule.replay_share:g} is reached with {wanted} rows")
        for row in again[wanted:]
    }
