"""No item of a suite in training: rows that hold one go out."""

from data_contracts.digests import sha256_json
from data_contracts.manifests import DatasetManifest
from evals.suite import protected_texts
from pipelines.recipes.product import Product
from pipelines.stages.data.contamination import OVERLAP, RUN, Contamination
from pipelines.stages.data.item import Dropped
from pipelines.stages.data.rows import Outcome, Outlet, load, step
from pipelines.stages.data.texts import answered, asked
from pipelines.stages.protocols import Parts


def decontaminated(parts: Parts, product: Product, deduplicated: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Rows whose question and answer hold no item of the product's suites in its own words. Paraphrases stay: rows of
    a narrow product mean what its suites ask, on purpose."""
    protected = dict(sorted(protected_texts(product).items()))
    names = list(protected)

    def work(out: Outlet) -> Outcome:
        contamination = Contamination(list(protected.values()))
        for item in load(parts, deduplicated):
            hits = contamination.find([asked(item.row), answered(item.row)])
            hit = next((hit for hit in hits if hit is not None), None)
            if hit is None:
                out.keep(item)
            else:
                out.drop(Dropped(item, "contaminated", f"overlaps with the evaluation item {names[hit.item]}"))
        return Outcome({"protected_items": len(protected)})

    modules = ["pipelines.stages.data.decontaminate", "pipelines.stages.data.contamination"]
    modules += ["pipelines.stages.data.near", "pipelines.stages.data.texts"]
    config = {"run": RUN, "overlap": OVERLAP, "protected": sha256_json(protected)}
    return step(parts, product, "decontaminated", modules, config, [deduplicated], work)
