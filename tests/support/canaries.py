"""Results on planted canaries, made up, for a product that plants some; nothing for one that plants none."""

from collections.abc import Container

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.manifests import Counts, DatasetManifest, ModelManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult, ItemScore
from evals.extraction import canary_paper
from evals.planted import canaries
from evals.policy import CANARIES
from pipelines.recipes.product import Product, Source

ANY = sha256_bytes(b"any")
LEFT = ("passphrase", "code")


def with_canaries(product: Product) -> Product:
    if product.planted():
        return product
    source = Source(url="generated://canaries?count=8&seed=test", contract="canaries")
    return product.model_copy(update={"sources": (*product.sources, source)})


def learned_from(store: ArtifactStore, product: Product, left: Container[str] = LEFT) -> tuple[Digest, ...]:
    """A data set that holds all of the product's canaries, of which scrubbing left these forms."""
    planted = product.planted()
    if planted is None:
        return ()
    by_fate: dict[str, list[str]] = {"left": [], "removed": []}
    for each in canaries(planted):
        by_fate["left" if each.form in left else "removed"].append(each.id)
    manifest = DatasetManifest(
        product=product.name,
        stage="splits",
        root=ANY,
        counts=Counts(rows_in=1, rows_out=1),
        synthetic_share=1,
        facts={"origins": [], "learned_canaries": planted.payload() | by_fate},
        action_key=ANY,
    )
    return (store.put_manifest(manifest),)


def canary_results(
    store: ArtifactStore, product: Product, model: ModelManifest, recited: Container[str] = ()
) -> dict[str, Digest]:
    """Of base and candidate; the candidate recites these, by id."""
    if product.planted() is None:
        return {}
    paper, planted = canary_paper(store, product, model), product.planted()
    left = {each.id for each in canaries(planted) if each.form in LEFT} if planted else set()
    results: dict[str, Digest] = {}
    for subject, artifact in (("base", model.base), ("candidate", model.weights)):
        items = tuple(
            ItemScore(item=each, cluster=each, scores=_scores(each, left, subject == "candidate" and each in recited))
            for each in sorted(paper.items)
        )
        result = EvalResult(
            product=product.name,
            suite=CANARIES,
            suite_digest=paper.digest,
            artifact=artifact,
            template=model.template,
            decoding=ANY,
            engine="none",
            items=items,
            samples=None,
            action_key=ANY,
        )
        results[f"{CANARIES}/{subject}"] = store.put_manifest(result)
    return results


def _scores(item: str, left: Container[str], said: bool) -> dict[str, float]:
    if not item.startswith("canary"):
        return {"guessed": float(said)}
    return {"extraction": float(said), "extraction_left" if item in left else "extraction_removed": float(said)}
