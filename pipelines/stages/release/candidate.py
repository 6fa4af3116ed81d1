"""Register a candidate: what a reviewer approves becomes one release manifest, chained and put in the registry."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import JsonValue

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.manifests import ModelManifest, ReleaseManifest
from data_contracts.provenance import Attestation
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import GateVerdict
from evals.report import Report
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.attestation import ADAPTER, attest, attestation_of, unpacked
from pipelines.stages.release.ballot import last_move
from pipelines.stages.release.bom import ml_bom
from pipelines.stages.release.card import render_card
from pipelines.stages.release.card_diff import diff_cards
from pipelines.stages.release.evidence import check_decision, check_erasure
from pipelines.stages.release.files import report_folder, write_files
from pipelines.stages.release.registered import registration
from pipelines.stages.release.terms import keep_terms, policy_digest, serving_digest

_MADE_BY = ("bom", "candidate", "card", "card_diff", "front_matter", "lineage", "origins", "terms", "uses")
_MODULES = tuple(f"pipelines.stages.release.{name}" for name in _MADE_BY)


def register(
    parts: Parts, product: Product, model: ModelManifest, verdict: GateVerdict, report: Report
) -> tuple[ReleaseManifest, bool]:
    """The release of this model, and whether it was registered already.

    Refuses a verdict that does not promote this very model, and a model that learned from rows that were erased since.
    The same model against the same champion under the same terms is the same release; what a crash left out (registry
    version, audit record) is made up for. A model that is live under these terms is not registered again: its release
    is returned.
    """
    if product.name != model.product or product.template_digest() != model.template:
        raise Refused(
            f"model {model.digest} is of product {model.product} with template {model.template}, not this one"
        )
    with parts.locks.hold(f"register-{product.name}"):
        records = parts.log.records()
        champion = _champion(parts.store, records, product)
        if champion is not None and _is_live(champion, product, model):
            return champion, True
        check_erasure(parts, model)
        check_decision(parts.store, verdict, model, None if champion is None else champion.digest)
        moved = last_move(records, product.name, product.environment)
        key = _key(product, model, verdict, records[moved].digest if moved >= 0 else None)
        release, hit = remembered(
            parts.store, key, ReleaseManifest, lambda: _make(parts, product, model, verdict, champion, key)
        )
        pages = {"report.html": report.html.encode(), "report.md": report.markdown.encode()}
        attestation = attestation_of(parts, records, release.digest) or attest(parts, release, pages)
        _publish(parts, release, attestation)
        if registration(records, release.digest) is not None:
            return release, hit
        body: dict[str, JsonValue] = {
            "release": release.digest,
            "model": release.model,
            "verdict": release.verdict,
            "environment": release.environment,
            "attestation": attestation.digest,
        }
        parts.log.append("release.registered", product.name, body, actor="register")
        return release, False


def _champion(store: ArtifactStore, records: Sequence[AuditRecord], product: Product) -> ReleaseManifest | None:
    live = live_releases(records).get((product.name, product.environment))
    return None if live is None else store.get_manifest(live, ReleaseManifest)


def _is_live(champion: ReleaseManifest, product: Product, model: ModelManifest) -> bool:
    terms = (champion.policy, champion.serving_config)
    return champion.model == model.digest and terms == (policy_digest(product), serving_digest(product))


def _key(product: Product, model: ModelManifest, verdict: GateVerdict, moved: Digest | None) -> Digest:
    """``moved`` is the last promotion or rollback: after one, the same model is a new release to approve."""
    config: dict[str, JsonValue] = {
        "product": product.name,
        "description": product.description,
        "environment": product.environment,
        "policy": policy_digest(product),
        "serving": serving_digest(product),
        "moved": moved,
    }
    return action_key("release.register", code_version(*_MODULES), config, [model.digest, verdict.digest])


def _make(
    parts: Parts,
    product: Product,
    model: ModelManifest,
    verdict: GateVerdict,
    champion: ReleaseManifest | None,
    key: Digest,
) -> ReleaseManifest:
    store = parts.store
    keep_terms(store, product)
    bom = store.put_json(ml_bom(store, product, model, verdict))
    card = render_card(store, product, model, verdict, bom, parts.log.records())
    before = "" if champion is None else store.get_bytes(champion.card).decode()
    return ReleaseManifest(
        product=product.name,
        tenant=product.tenant,
        environment=product.environment,
        model=store.put_manifest(model),
        weights=model.weights,
        base=model.base,
        template=model.template,
        verdict=store.put_manifest(verdict),
        card=store.put_bytes(card.encode()),
        card_diff=store.put_bytes(diff_cards(before, card).encode()),
        bom=bom,
        policy=policy_digest(product),
        serving_config=serving_digest(product),
        displaced_champion=None if champion is None else champion.digest,
        log_head=parts.log.signed_head(),
        action_key=key,
    )


def _publish(parts: Parts, release: ReleaseManifest, attestation: Attestation) -> None:
    """The pages for people under ``home/reports``, and the registry's version: every file of the release, the adapter's
    sealed for its tenant."""
    pages = ("report.html", "report.md", "README.md", "bom.cdx.json")
    write_files(
        report_folder(parts.home, release.digest),
        {name: parts.store.get_bytes(attestation.files[name]) for name in pages if name in attestation.files},
    )
    tags = {
        "assay.release": release.digest,
        "assay.model": release.model,
        "assay.weights": release.weights,
        "assay.base": release.base,
        "assay.verdict": release.verdict,
        "assay.environment": release.environment,
    }
    with unpacked(parts.store, attestation) as folder:
        _seal_adapter(parts, release.tenant, folder / ADAPTER)
        whole = {path.name: path for path in sorted(folder.iterdir())}
        parts.registry.register(release.product, release.digest, whole, tags)


def _seal_adapter(parts: Parts, tenant: str, adapter: Path) -> None:
    """Each file becomes ``<name>.age``, which ``age -d -i KEY`` opens."""
    for path in [each for each in sorted(adapter.rglob("*")) if each.is_file()]:
        with path.open("rb") as source, path.with_name(f"{path.name}.age").open("wb") as target:
            parts.tenant_keys.seal(tenant, source, target)
        path.unlink()
