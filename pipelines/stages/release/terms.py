"""The terms of a release that come from the product's files: its policy and how it will be served, as stored documents.

Each is a JSON document in the store, named by its digest, so that a reviewer's signature covers it.
"""

from pydantic import JsonValue

from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.manifests import ReleaseManifest
from data_contracts.store import ArtifactStore
from evals.policy import load_policy
from pipelines.recipes.approvals import ApprovalRule
from pipelines.recipes.product import Product


def policy_document(product: Product) -> dict[str, JsonValue]:
    """What decides: the gate policy (as a verdict names it), the data policy's bytes, and who must approve."""
    return {
        "approval": product.approval.model_dump(mode="json", exclude_none=True),
        "data_policy": sha256_file(product.file("data_policy", product.data_policy)),
        "gate_policy": load_policy(product.file("gate_policy", product.gate_policy)).digest,
    }


def serving_document(product: Product) -> dict[str, JsonValue]:
    """How it will be served: lengths, answer limits, the canary's thresholds."""
    return {"serving": product.serving.model_dump(mode="json"), "tenant": product.tenant}


def policy_digest(product: Product) -> Digest:
    return sha256_json(policy_document(product))


def approval_rule(store: ArtifactStore, release: ReleaseManifest) -> ApprovalRule:
    """The one that the release was registered under."""
    return ApprovalRule.model_validate(store.get_json(release.policy)["approval"])


def serving_digest(product: Product) -> Digest:
    return sha256_json(serving_document(product))


def keep_terms(store: ArtifactStore, product: Product) -> None:
    """Put both documents, the policies they name and the template into the store."""
    store.put_manifest(load_policy(product.file("gate_policy", product.gate_policy)))
    store.put_bytes(product.file("data_policy", product.data_policy).read_bytes())
    store.put_bytes(product.file("template", product.template).read_bytes())
    store.put_json(policy_document(product))
    store.put_json(serving_document(product))
