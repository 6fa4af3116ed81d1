"""Which model is judged and released: always one that is named, by the run that selected it or by digest."""

from typing import TypeVar

import dagster as dg
from pydantic import Field

from data_contracts.chain import live_releases
from data_contracts.digests import is_digest
from data_contracts.errors import BadInput, Missing, Refused
from data_contracts.frozen import Frozen
from data_contracts.manifests import ModelManifest, ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.wiring import Line
from resources.dagster import Manifests, root_run

M = TypeVar("M", bound=Frozen)
SELECTED = dg.AssetKey(["model", "selected"])


class Candidate(dg.Config):
    candidate: str = Field(
        default="", description="Digest of the model to judge (sha256:...). Empty: the one that this very run selects."
    )


def candidate_model(
    context: dg.AssetExecutionContext, line: Line, manifests: Manifests, config: Candidate
) -> ModelManifest:
    """The model that the run names, or that it selected itself; never the newest of the product."""
    product, run = context.partition_key, root_run(context.run)
    digest = config.candidate or manifests.of_run(SELECTED, product, run)
    if digest is None:
        raise Refused(
            f"this run did not select a model for {product}: name one in its config (candidate: sha256:...), "
            "for example the data version of a materialization of model/selected"
        )
    if not is_digest(digest):
        raise BadInput(f"candidate {digest!r} is not a digest: expected sha256: and 64 hex digits")
    model = line.store.get_manifest(digest, ModelManifest)
    if model.product != product:
        raise Refused(f"candidate {digest} is a model of {model.product}, not of {product}")
    return model


def champion_model(line: Line, product: Product) -> ModelManifest | None:
    """The model of the release that is live by the audit log."""
    release = live_releases(line.log.records()).get((product.name, product.environment))
    if release is None:
        return None
    return line.store.get_manifest(line.store.get_manifest(release, ReleaseManifest).model, ModelManifest)


def judgement(manifests: Manifests, asset: dg.AssetKey, model: ModelManifest, kind: type[M]) -> M:
    """What ``asset`` found about this very model."""
    digest = manifests.of_model(asset, model.digest)
    if digest is None:
        raise Missing(f"{asset.to_user_string()} was never made for candidate {model.digest}: materialize it first")
    return manifests.store.get_manifest(digest, kind)
