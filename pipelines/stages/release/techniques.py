"""The decision sheet of the technique desk: which model is asked, and what its training took, by the records."""

from collections.abc import Callable

from data_contracts.chain import live_releases
from data_contracts.digests import is_digest
from data_contracts.errors import BadInput, Missing, Refused
from data_contracts.manifests import BaseManifest, ModelManifest, ReleaseManifest
from evals.desk import Asking, compare
from evals.desk_pages import pages
from evals.desk_sheet import DeskSheet, Training
from evals.report import Report
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.dossier_parts import costs
from pipelines.stages.release.lineage import checkpoints


def decision_sheet(
    parts: Parts,
    product: Product,
    model: ModelManifest,
    price: float | None,
    asking: Asking,
    say: Callable[[str], None],
) -> tuple[DeskSheet, Report]:
    """The sheet with its pages. ``price`` is what an hour of the machine that serves costs."""
    base = parts.store.get_manifest(model.base, BaseManifest)
    sheet = compare(parts, product, base, model, training_of(parts, model), price, asking, say)
    return sheet, pages(sheet)


def training_of(parts: Parts, model: ModelManifest) -> Training | None:
    """``None`` where its runs were recorded elsewhere. Without a rate at the time there is no cost."""
    stages = costs(parts, checkpoints(parts.store, model))
    if not stages:
        return None
    known = [stage.money for stage in stages if stage.money is not None]
    return Training(
        seconds=sum(stage.seconds for stage in stages), cost=sum(known) if len(known) == len(stages) else None
    )


def model_for(parts: Parts, product: Product, candidate: str) -> ModelManifest:
    """The model of this digest; without one the product's live model, else the last that was selected."""
    if candidate and not is_digest(candidate):
        raise BadInput(f"candidate {candidate!r} is not a digest: expected sha256: and 64 hex digits")
    model = parts.store.get_manifest(candidate or _newest(parts, product), ModelManifest)
    if model.product != product.name:
        raise Refused(f"candidate {model.digest} is a model of {model.product}, not of {product.name}")
    return model


def _newest(parts: Parts, product: Product) -> str:
    records = parts.log.records()
    live = live_releases(records).get((product.name, product.environment))
    if live is not None:
        return parts.store.get_manifest(live, ReleaseManifest).model
    selected = [str(r.body["model"]) for r in records if r.event == "model.selected" and r.product == product.name]
    if not selected:
        raise Missing(
            f"no model of {product.name} was ever selected: `assay run {product.name}` makes one, or name one with "
            "--candidate sha256:..."
        )
    return selected[-1]
