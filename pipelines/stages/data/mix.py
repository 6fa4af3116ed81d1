"""The mixture: each tier's share of rows, and the floor of rows that people wrote."""

from pydantic import JsonValue

from data_contracts.manifests import DatasetManifest
from data_contracts.policy import check_human_floor, load_policy
from pipelines.recipes.product import Product
from pipelines.stages.data.rows import Dropped, Item, Outcome, draw, load, step
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.data.toxicity import offending
from pipelines.stages.protocols import Parts


def mixture(parts: Parts, product: Product, decontaminated: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """The rows to learn from. Which rows a tier's weight leaves out is drawn by their content and the product's seed.
    Raises `Refused` when people wrote too few of them and the policy holds no waiver."""
    policy = load_policy(product.file("data_policy", product.data_policy))
    rule = policy.rule(product.purpose)

    def work() -> Outcome:
        items = load(parts, decontaminated)
        entries = parts.ledger.entries(item.name for item in items)
        kept: list[Item] = []
        dropped: list[Dropped] = []
        offences = offending(parts, policy, items)
        dropped += offences.values()
        for item in (item for item in items if item.name not in offences):
            tier = entries[item.name].tier
            if draw(["mixture", product.split.seed], item.row) < policy.tier_weights[tier]:
                kept.append(item)
            else:
                dropped.append(Dropped(item, "tier-weight", f"tier {tier} has weight {policy.tier_weights[tier]:g}"))
        synthetic = sum(entries[item.name].synthetic_depth > 0 for item in kept)
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
            },
        )

    modules = [
        "pipelines.stages.data.mix",
        "pipelines.stages.data.texts",
        "pipelines.stages.data.toxicity",
        "data_contracts.policy",
    ]
    config = {"policy": policy.digest, "purpose": product.purpose, "seed": product.split.seed}
    if policy.max_toxicity is not None:
        config["toxicity"] = parts.toxicity.identity
    return step(parts, product, "mixture", modules, config, [decontaminated], work)


def _lengths(items: list[Item]) -> JsonValue:
    """Characters that are said in a row: the fewest, the middle number, the most."""
    sizes = sorted(len(asked(item.row)) + len(answered(item.row)) for item in items) or [0]
    return {"min": sizes[0], "median": sizes[len(sizes) // 2], "max": sizes[-1]}
