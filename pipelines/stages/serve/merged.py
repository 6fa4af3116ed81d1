"""Which merged weights have a model server of their own: those of the live release of the product whose placement says
so. That server takes minutes to start, and until it answers, and whenever it does not, the same release answers as an
adapter: so this runs beside the reconciler and no swap waits for it.
"""

import logging
from collections.abc import Sequence

from data_contracts.chain import AuditRecord
from data_contracts.errors import AssayError, Refused
from data_contracts.lifecycle import follow
from data_contracts.manifests import ExportManifest, ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.routes import project

FORMAT = "merged"

log = logging.getLogger(__name__)


def place_merged(parts: Parts, products: Sequence[Product]) -> list[str]:
    """Have the server of merged weights hold what it should, or nothing; says what had to be done. Safe to repeat;
    waits until the server answers.

    Raises `Refused` for more than one such product, for a live release without a merged export in the store, and for
    weights that do not fit the machine; `Tampered`, `Missing` or `Shredded` for weights that cannot be read whole. What
    the server held before is not wanted any more then: it is stopped.
    """
    merged = parts.merged
    try:
        export = _wanted(parts, products)
        if export is not None:
            if merged.serves(export):
                return []
            merged.serve(export)
            return [f"{export.product} answers from merged weights: export {export.digest}"]
    except AssayError:
        merged.stop()
        raise
    if not merged.running():
        return []
    merged.stop()
    return ["stopped the server of merged weights"]


def _wanted(parts: Parts, products: Sequence[Product]) -> ExportManifest | None:
    named = [product for product in products if product.serving.placement == "merged"]
    if not named:
        return None
    if len(named) > 1:
        raise Refused(
            f"{', '.join(sorted(each.name for each in named))} have placement: merged, and there is one server of "
            "merged weights: let all but one be pinned"
        )
    records = parts.log.records()
    (route,) = project(records, named).routes
    if route.champion is None or follow(records).standings[route.champion].shredded:
        return None
    return merged_export(parts, records, parts.store.get_manifest(route.champion, ReleaseManifest))


def merged_export(parts: Parts, records: Sequence[AuditRecord], release: ReleaseManifest) -> ExportManifest:
    """The newest that the audit log names and the store can read. Raises `Refused` with the remedy where there is
    none."""
    for record in reversed(records):
        body = record.body
        if record.event == "release.exported" and (body["release"], body["format"]) == (release.digest, FORMAT):
            export = parts.store.get_manifest(str(body["export"]), ExportManifest)
            if parts.store.readable(export.tree):
                return export
    raise Refused(
        f"{release.product} has placement: merged, and {release.digest} has no merged export in the store, so that it "
        f"answers as an adapter: assay export {release.digest} --format merged --out FOLDER"
    )
