"""What a release stands on, read again from store, product files and audit log: nothing is taken from a request."""

import json
from collections.abc import Sequence
from typing import Any

from data_contracts.chain import AuditRecord, live_releases, revoked_releases
from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.lifecycle import NEXT, follow
from data_contracts.manifests import DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult, GateVerdict
from evals.gate import evaluate_policy
from evals.noise import stored_reruns
from evals.policy import GatePolicy
from evals.trust import check_judges
from pipelines.recipes.product import Product
from pipelines.stages.data.integrity import erased_rows
from pipelines.stages.protocols import Parts
from pipelines.stages.release.audit import check_log
from pipelines.stages.release.card_diff import diff_cards
from pipelines.stages.release.lineage import checkpoints, training_sets
from pipelines.stages.release.registered import registration
from pipelines.stages.release.terms import policy_digest, serving_digest


def facts(release: ReleaseManifest) -> dict[str, Any]:
    """The fields of an approval statement that the release fixes (DESIGN invariant 9)."""
    return {
        "product": release.product,
        "environment": release.environment,
        "weights": release.weights,
        "base": release.base,
        "template": release.template,
        "verdict": release.verdict,
        "card_diff": release.card_diff,
        "policy": release.policy,
        "serving_config": release.serving_config,
        "displaced_champion": release.displaced_champion,
    }


def examine(parts: Parts, product: Product, digest: Digest) -> tuple[ReleaseManifest, list[AuditRecord]]:
    """The release and the checked audit log, when all it stands on still holds. Raises `Refused` naming what does not.

    Raises `Tampered` or `Missing` for what was changed or taken from the store, `ChainBroken` for the log.
    """
    records = check_log(parts.log, parts.signatures)
    if registration(records, digest) is None:
        raise Refused(f"{digest} is not a registered release: the audit log has no record of it")
    release = parts.store.get_manifest(digest, ReleaseManifest)
    check_revocation(records, digest)
    check_state(records, digest)
    check_product(release, product)
    check_champion(records, release)
    check_erasure(parts, check_model(parts.store, release))
    check_verdict(parts.store, release)
    check_card(parts.store, release)
    for blob in (release.policy, release.serving_config, release.template):
        parts.store.get_bytes(blob)
    return release, records


def check_product(release: ReleaseManifest, product: Product) -> None:
    """The product's files are still those that the release was registered under."""
    today = {
        "product": product.name,
        "tenant": product.tenant,
        "environment": product.environment,
        "template": product.template_digest(),
        "policy": policy_digest(product),
        "serving_config": serving_digest(product),
    }
    for field, value in today.items():
        if getattr(release, field) != value:
            raise Refused(
                f"the {field} of product {product.name} is now {value}, the release has {getattr(release, field)}: "
                "register the candidate again"
            )


def check_revocation(records: Sequence[AuditRecord], release: Digest) -> None:
    record = revoked_releases(records).get(release)
    if record is not None:
        raise Refused(f"{release} was revoked (audit record {record.sequence}, {record.body['reason']}): train anew")


def check_state(records: Sequence[AuditRecord], release: Digest) -> None:
    """Raises `Refused` for a release that is on its way out: it is not approved or promoted any more."""
    standing = follow(records).standings[release]
    if standing.shredded:
        raise Refused(f"{release} was shredded with its tenant: restore it from an archive (assay tenant restore)")
    state = standing.state
    if state in ("deprecated", "retired", "archived"):
        raise Refused(f"{release} is in {state}, and no approval leads it back: you can {NEXT[state]}")


def check_erasure(parts: Parts, model: ModelManifest) -> None:
    """Raises `Refused` when the model learned from a row whose subject was erased, also while it was being trained."""
    for digest in training_sets(model, checkpoints(parts.store, model)):
        erased = erased_rows(parts, parts.store.get_manifest(digest, DatasetManifest))
        if erased:
            raise Refused(
                f"model {model.digest} learned from {len(erased)} rows of data set {digest} that were erased: run the "
                "line again, which trains without them"
            )


def check_champion(records: Sequence[AuditRecord], release: ReleaseManifest) -> None:
    live = live_releases(records).get((release.product, release.environment))
    if live != release.displaced_champion:
        raise Refused(
            f"the champion moved: {release.digest} was compared with {release.displaced_champion or 'the base'}, "
            f"and {live or 'the base'} is live now; register the candidate again"
        )


def check_model(store: ArtifactStore, release: ReleaseManifest) -> ModelManifest:
    model = store.get_manifest(release.model, ModelManifest)
    for field in ("product", "weights", "base", "template"):
        if getattr(model, field) != getattr(release, field):
            raise Refused(f"release {release.digest} and its model {release.model} differ in {field}")
    return model


def check_card(store: ArtifactStore, release: ReleaseManifest) -> None:
    """Card, difference and bill of materials are there, and what was signed is about these: the difference is that of
    the two cards, and the card names the bill."""
    card = store.get_bytes(release.card).decode()
    champion = release.displaced_champion
    before = "" if champion is None else store.get_bytes(store.get_manifest(champion, ReleaseManifest).card).decode()
    if store.get_bytes(release.card_diff).decode() != diff_cards(before, card):
        raise Refused(f"{release.card_diff} is not the difference of the champion's card and card {release.card}")
    if release.bom is not None:
        store.get_bytes(release.bom)
        if release.bom not in card:
            raise Refused(f"card {release.card} does not name the bill of materials {release.bom}")


def check_weights(store: ArtifactStore, model: ModelManifest) -> None:
    """Every byte of the weights, and that an adapter was trained on the base that the model names."""
    with store.opened(model.weights) as folder:
        if model.method == "full":
            return
        trained_on = json.loads((folder / "adapter_config.json").read_bytes()).get("base_model_name_or_path")
    if trained_on != model.base:
        raise Refused(f"the adapter {model.weights} was trained on base {trained_on}, the release has {model.base}")


def check_verdict(store: ArtifactStore, release: ReleaseManifest) -> GateVerdict:
    """The verdict is on this very model against this champion, promotes it, and comes out of its results again."""
    verdict = store.get_manifest(release.verdict, GateVerdict)
    check_decision(store, verdict, store.get_manifest(release.model, ModelManifest), release.displaced_champion)
    policy = store.get_manifest(verdict.policy, GatePolicy)
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    check_judges(store, results)
    reruns = stored_reruns(store, policy, results, verdict.reruns)
    criteria, decision, reason = evaluate_policy(policy, results, reruns)
    if (criteria, decision, reason) != (verdict.criteria, verdict.decision, verdict.reason):
        raise Refused(f"verdict {release.verdict} does not come out of its results again (now: {decision}, {reason})")
    terms = store.get_json(release.policy)
    if terms["gate_policy"] != verdict.policy:
        raise Refused(f"the verdict was made by gate policy {verdict.policy}, the release has {terms['gate_policy']}")
    return verdict


def check_decision(store: ArtifactStore, verdict: GateVerdict, model: ModelManifest, champion: Digest | None) -> None:
    """Raises `Refused` unless the verdict promotes this model, on results of it, of its base and of the champion, where
    that is another model."""
    if verdict.model != model.digest or verdict.product != model.product:
        raise Refused(f"verdict {verdict.digest} is for model {verdict.model}, not for {model.digest}")
    if verdict.decision != "promote":
        raise Refused(f"the gate's verdict is {verdict.decision}, not promote: {verdict.reason}")
    artifacts = {"candidate": model.weights, "base": model.base}
    live = None if champion is None else store.get_manifest(champion, ReleaseManifest)
    if live is not None and live.model != model.digest:
        artifacts["champion"] = live.weights
    for name, digest in verdict.results.items():
        subject = name.rsplit("/", 1)[-1]
        artifact = store.get_manifest(digest, EvalResult).artifact
        if artifact != artifacts.get(subject):
            raise Refused(
                f"the verdict's result {name} is of {artifact}, the {subject} is {artifacts.get(subject, 'none')}: "
                "evaluate and judge the candidate again"
            )
    judged = {name.rsplit("/", 1)[-1] for name in verdict.results}
    if judged != set(artifacts):
        missing = ", ".join(sorted(set(artifacts) - judged))
        raise Refused(f"the verdict has no results of {missing}: evaluate and judge the candidate again")
