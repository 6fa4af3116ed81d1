"""The mixture: rows whose time is up leave it, of the others each weight's share stays; the floor of human rows."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime

from pydantic import JsonValue

from data_contracts.contract import DataContract, Terms
from data_contracts.manifests import DatasetManifest
from data_contracts.policy import check_human_floor, judge, load_policy
from pipelines.recipes.product import Product
from pipelines.stages.data.batches import batched
from pipelines.stages.data.item import Dropped, Item
from pipelines.stages.data.proportions import Candidate, in_proportion
from pipelines.stages.data.protocols import LanguageDetector
from pipelines.stages.data.rows import Outcome, Outlet, draw, load, step
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
    passed = {day for day in _last_days(parts, decontaminated, terms.values()) if day is not None and day < now}

    toxicity: JsonValue = None
    if policy.max_toxicity is not None:
        scorer = parts.toxicity
        toxicity = {"max": policy.max_toxicity, "by": scorer.identity, "known_biases": scorer.known_biases}

    replay_sources = {source.url: source.kind for source in product.sources if source.replay}

    def work(out: Outlet) -> Outcome:
        candidates: list[Candidate] = []
        with parts.datasets.spool() as spool:
            for items in batched(load(parts, decontaminated)):
                offences = offending(parts, policy, items)
                for item in items:
                    origin = item.origin
                    decision = judge(policy, product.purpose, origin, terms[origin.contract])
                    if origin.retain_until in passed:
                        told = f"{origin.source}: was to be kept until {origin.retain_until}"
                        out.drop(Dropped(item, "expired", told))
                    elif item.name in offences:
                        out.drop(offences[item.name])
                    elif draw(("mixture", product.split.seed), item.content) < decision.share:
                        replayed = origin.source in replay_sources
                        row = item.row
                        candidates.append(Candidate(item.name, item.content, row["kind"], row.get("label"), replayed))
                        spool.add(item, item.content)
                    else:
                        out.drop(Dropped(item, "weight", decision.reason))
            kinds = set(replay_sources.values())
            excess = in_proportion(product.mixture, product.split.seed, kinds, candidates)
            made = _Made(parts.language)
            for item, _ in spool:
                if item.name in excess:
                    out.drop(Dropped(item, *excess[item.name]))
                else:
                    made.add(item)
                    out.keep(item)
        if made.sizes:
            check_human_floor(rule, len(made.sizes), made.synthetic)
        waiver = rule.human_floor_waiver
        return Outcome(
            {
                "synthetic_rows": made.synthetic,
                "max_synthetic_depth": made.depth,
                "human_floor": rule.human_floor,
                "human_floor_waiver": waiver.payload() if waiver else None,
                "lengths": _lengths(made.sizes),
                "languages": dict(sorted(made.languages.items())),
                "replay_rows": sum(each.replayed and each.name not in excess for each in candidates),
                "largest_label_share": _largest(made.labels),
                "toxicity": toxicity,
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
    config["language"] = parts.language.identity
    config["replay"] = {**replay_sources}
    config["expired"] = [str(day) for day in sorted(passed)]
    config["toxicity"] = toxicity
    return step(parts, product, "mixture", modules, config, [decontaminated], work)


def _last_days(parts: Parts, rows: DatasetManifest, terms: Iterable[Terms]) -> set[date | None]:
    """Until when the rows of a data set may be kept: by their contracts, or by their own dates where one has them."""
    stated = list(terms)
    if all(each.retainUntilField is None for each in stated):
        return {each.retainUntil for each in stated}
    return {item.origin.retain_until for item in parts.datasets.read(rows.root)}


class _Made:
    """What the mixture's rows add up to. ``languages`` counts them by that of what the customer says (ISO 639-1, or
    ``und`` where it cannot be told)."""

    def __init__(self, detector: LanguageDetector) -> None:
        self._detector = detector
        self.languages: Counter[str] = Counter()
        self.synthetic = self.depth = 0
        self.sizes: list[int] = []
        self.labels: Counter[str] = Counter()

    def add(self, item: Item) -> None:
        self.synthetic += item.origin.synthetic_depth > 0
        self.depth = max(self.depth, item.origin.synthetic_depth)
        self.sizes.append(len(asked(item.row)) + len(answered(item.row)))
        self.languages[self._detector.language(asked(item.row)) or "und"] += 1
        if "label" in item.row:
            self.labels[item.row["label"]] += 1


def _largest(labels: Counter[str]) -> float | None:
    """Share of the commonest label among the rows that have one."""
    return round(max(labels.values()) / labels.total(), 6) if labels else None


def _lengths(sizes: list[int]) -> JsonValue:
    """Characters that are said in a row: the fewest, the middle number, the most."""
    ordered = sorted(sizes) or [0]
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}
