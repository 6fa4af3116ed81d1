"""No item of a suite in training: rows that hold one go out."""

from pydantic import JsonValue

from data_contracts.digests import sha256_json
from data_contracts.manifests import DatasetManifest
from evals.suite import protected_texts
from pipelines.recipes.product import Product
from pipelines.stages.data.batches import batched
from pipelines.stages.data.contamination import OVERLAP, RUN, SIMILARITY, Contamination
from pipelines.stages.data.item import Dropped
from pipelines.stages.data.rows import Outcome, Outlet, load, step
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.protocols import Parts


def decontaminated(parts: Parts, product: Product, deduplicated: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Rows whose question and answer hold no item of the product's suites in its own words. Paraphrases stay unless the
    product asks for them to go: rows of a narrow product mean what its suites ask, on purpose."""
    least = product.decontaminate.similarity
    protected = dict(sorted(protected_texts(product).items()))
    names = list(protected)

    def work(out: Outlet) -> Outcome:
        embedder = parts.embedder if least else None
        contamination = Contamination(list(protected.values()), embedder, least or SIMILARITY)
        for items in batched(load(parts, deduplicated)):
            hits = contamination.find([text for item in items for text in (asked(item.row), answered(item.row))])
            for item, found in zip(items, zip(hits[::2], hits[1::2], strict=True), strict=True):
                hit = found[0] or found[1]
                if hit is None:
                    out.keep(item)
                else:
                    how = "overlaps with" if hit.how == "verbatim" else f"says in other words ({hit.score:.2f})"
                    out.drop(Dropped(item, "contaminated", f"{how} the evaluation item {names[hit.item]}"))
        return Outcome({"protected_items": len(protected)})

    modules = ["pipelines.stages.data.decontaminate", "pipelines.stages.data.contamination"]
    modules += ["pipelines.stages.data.near", "pipelines.stages.data.texts"]
    config: dict[str, JsonValue] = {"run": RUN, "overlap": OVERLAP, "protected": sha256_json(protected)}
    if least:
        config |= {"similarity": least, "embedder": parts.embedder.identity}
    return step(parts, product, "decontaminated", modules, config, [deduplicated], work)
