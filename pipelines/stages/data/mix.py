"""The mixture: rows whose time is up leave it, of the others each weight's share stays; the floor of human rows."""

from collections import Counter
from datetime import UTC, date, datetime

from pydantic import JsonValue

from data_contracts.contract import DataContract
from data_contracts.manifests import DatasetManifest
from data_contracts.policy import check_human_floor, judge, load_policy
from pipelines.recipes.product import Product
from pipelines.stages.data.proportions import in_proportion
from pipelines.stages.data.rows import Dropped, Item, Outcome, draw, load, step
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.data.toxicity import offending
from pipelines.stages.protocols import Parts


def mixture(
    parts: Parts, product: Product, decontaminated: DatasetManifest, today: date | None = None
) -> tuple[DatasetManifest, bool]:
    """The rows to learn from. Which rows a weight leaves out is drawn by their content and the product's seed. Raises
    `Refused` when people wrote too few of them and the policy holds no waiver."""
    policy = load_policy(product.file("data_policy", product.data_policy))
    rule = policy.rule(product.purpose)
    contracts = {each.contract for each in decontaminated.sources}
    terms = {each: parts.store.get_manifest(each, DataContract).terms for each in contracts}
    now = today or datetime.now(UTC).date()
    # The dates that have passed are part of the action key, not the day: an unchanged line stays a hit tomorrow.
    passed = {each.retainUntil for each in terms.values() if each.retainUntil is not None and each.retainUntil < now}

    replay_sources = {source.url for source in product.sources if source.replay}

    def work() -> Outcome:
        items = load(parts, decontaminated)
        entries = parts.ledger.entries(item.name for item in items)
        kept: list[Item] = []
        dropped: list[Dropped] = []
        offences = offending(parts, policy, items)
        for item in items:
            entry = entries[item.name]
            decision = judge(policy, product.purpose, entry, terms[entry.contract])
            if entry.retain_until in passed:
                dropped.append(Dropped(item, "expired", f"{entry.source}: was to be kept until {entry.retain_until}"))
            elif item.name in offences:
                dropped.append(offences[item.name])
            elif draw(["mixture", product.split.seed], item.row) < decision.share:
                kept.append(item)
            else:
                dropped.append(Dropped(item, "weight", decision.reason))
        replayed = {item.name for item in kept if entries[item.name].source in replay_sources}
        kept, out_of_proportion = in_proportion(product.mixture, product.split.seed, kept, replayed)
        dropped += out_of_proportion
        synthetic = sum(entries[item.name].synthetic_depth > 0 for item in kept)
        if kept:
            check_human_floor(rule, len(kept), synthetic)
        waiver = rule.human_floor_waiver
        return Outcome(
            kept,
            dropped,
            facts={
                "synthetic_rows": synthetic,
                "max_synthetic_depth": max((entries[item.name].synthetic_depth for item in kept), default=0),
                "human_floor": rule.human_floor,
                "human_floor_waiver": waiver.payload() if waiver else None,
                "lengths": _lengths(kept),
                "replay_rows": sum(item.name in replayed for item in kept),
                "largest_label_share": _largest_label(kept),
            },
        )

    modules = [
        "pipelines.stages.data.mix",
        "pipelines.stages.data.proportions",
        "pipelines.stages.data.texts",
        "pipelines.stages.data.toxicity",
        "data_contracts.policy",
    ]
    config: dict[str, JsonValue] = {"policy": policy.digest, "purpose": product.purpose, "seed": product.split.seed}
    config["proportions"] = product.mixture.payload()
    config["replay"] = " ".join(sorted(replay_sources))
    config["expired"] = [str(day) for day in sorted(passed)]
    if policy.max_toxicity is not None:
        config["toxicity"] = parts.toxicity.identity
    return step(parts, product, "mixture", modules, config, [decontaminated], work)


def _largest_label(items: list[Item]) -> float | None:
    """Share of the commonest label among the rows that have one."""
    counts = Counter(item.row["label"] for item in items if "label" in item.row)
    return round(max(counts.values()) / counts.total(), 6) if counts else None


def _lengths(items: list[Item]) -> JsonValue:
    """Characters that are said in a row: the fewest, the middle number, the most."""
    sizes = sorted(len(asked(item.row)) + len(answered(item.row)) for item in items) or [0]
    return {"min": sizes[0], "median": sizes[len(sizes) // 2], "max": sizes[-1]}
