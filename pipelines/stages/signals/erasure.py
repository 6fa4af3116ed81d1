"""Erase a subject: destroy its key and its rows' content, take what learned from them out of service, leave a receipt.

The intention is chained first and the receipt last. Every step between can be repeated, and finds its work by what
erasure leaves (ledger, names, manifests, audit log): a crash anywhere is finished by doing the same again.
"""

import logging
from collections.abc import Callable, Sequence

from pydantic import JsonValue

from data_contracts.chain import ALL, AuditRecord, live_stack, revoked_releases
from data_contracts.digests import Digest
from data_contracts.errors import AssayError, BadInput, Missing, Unavailable
from data_contracts.manifests import DatasetManifest, ReleaseManifest
from data_contracts.verdicts import ErasureReceipt, RetrainProposal, RouteTaken
from pipelines.recipes.product import Product
from pipelines.stages.data.ingest import forget_copies
from pipelines.stages.data.integrity import erased_rows
from pipelines.stages.data.protocols import ROWS_LOCK
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import read_routes
from pipelines.stages.signals.collector import LOCK as COLLECTOR
from pipelines.stages.signals.collector import discard
from pipelines.stages.signals.erasure_scope import Derived, Family, derived, family
from pipelines.stages.signals.retrain_decision import effort
from pipelines.stages.train.leftovers import forget_runs, runs_with

NOT_PROVED = (
    "That weights forgot: this is lineage, not unlearning. Checkpoints and adapters that learned from the rows still "
    "exist, in the store and in the model registry. They are revoked, not rewritten: never promoted, routed or gone "
    "back to.",
    "What lies outside this installation: the sources (their owners must take the person out; until then each run "
    "leaves the rows out), backups, snapshots and freed blocks of disks, caches of download libraries, the temporary "
    "folder of a Ray cluster that was killed, files exported by hand, releases that were exported and archives of "
    "tenants (the audit log names them; nothing revoked is restored from an archive), answers that were given.",
    "Rows that tell of the person without its identifier: under another one, or in the text of somebody else's row.",
)
PastRuns = Callable[[str], Sequence[float]]
"""Product -> how many seconds past runs of its line took."""

log = logging.getLogger(__name__)


def erase(
    parts: Parts, products: Sequence[Product], subject: str, reason: str, past_runs: PastRuns
) -> tuple[ErasureReceipt, bool]:
    """The receipt, and whether it was there already. ``subject`` is a pseudonym. Raises `Missing` for one that nothing
    is known of; whatever else it raises, doing the same again goes on."""
    check_request(parts, subject, reason)
    with parts.locks.hold("erasure"):
        records = parts.log.records()
        done = _about(records, "erasure.completed", subject)
        if done is not None:
            return parts.store.get_manifest(str(done.body["receipt"]), ErasureReceipt), True
        begun = _about(records, "erasure.begun", subject)
        if begun is None:
            body: dict[str, JsonValue] = {"subject": subject, "reason": reason}
            begun = parts.log.append("erasure.begun", ALL, body, actor="erasure")
        return _carry_out(parts, products, begun, past_runs), False


def check_request(parts: Parts, subject: str, reason: str) -> None:
    if not reason.strip():
        raise BadInput("an erasure needs a reason: it stays in the audit log")
    if not parts.keyring.has(subject) and not parts.keyring.erased([subject]):
        raise Missing(
            f"no row of this subject (pseudonym {subject}) was ever held: nothing was done. Check the identifier: it "
            "is written as in the column that the data contract names as subjectKey"
        )


def unfinished(records: Sequence[AuditRecord]) -> list[AuditRecord]:
    """The intentions without a receipt, oldest first."""
    done = {record.body["subject"] for record in records if record.event == "erasure.completed"}
    return [r for r in records if r.event == "erasure.begun" and r.body["subject"] not in done]


def _carry_out(parts: Parts, products: Sequence[Product], begun: AuditRecord, past_runs: PastRuns) -> ErasureReceipt:
    subject = str(begun.body["subject"])
    concerned = family(parts, subject)
    for each in sorted(concerned.subjects):
        parts.keyring.delete(each)
    _delete_content(parts, concerned)
    found = derived(parts, concerned.subjects)
    for release in _live_last(parts, found):
        _revoke(parts, release, begun)
    for blob in found.samples:
        parts.store.delete(blob)
    parts.answers.forget(found.weights())
    if found.releases:
        _take_off_routes(parts, products, found)
    _propose(parts, found, begun, past_runs)
    proved = _prove(parts, products, concerned, found)
    return _receipt(parts, begun, concerned, found, proved)


def _delete_content(parts: Parts, concerned: Family) -> None:
    """After the key: a step that is at work sees under the lock that it may not write these rows any more."""
    with parts.locks.hold(ROWS_LOCK):
        parts.datasets.erase(concerned.subjects)
    forget_runs(lambda: runs_with(parts.home / "training", parts.checkpoints, concerned.rows))
    forget_copies(parts)
    _forget_words(parts, concerned)


def _forget_words(parts: Parts, concerned: Family) -> None:
    """What was said and asked, also where it still waits sealed: the collector keeps nothing of an erased person."""
    if not parts.feedback.flush():
        raise Unavailable("the store of feedback cannot be reached: the erasure goes on with `assay erase --resume`")
    with parts.locks.hold(COLLECTOR):
        discard(parts, concerned.subjects)
        parts.feedback.forget(concerned.subjects)


def _live_last(parts: Parts, found: Derived) -> list[Digest]:
    """So that what a live release falls back to is never one that is about to be revoked."""
    records = parts.log.records()

    def is_live(release: ReleaseManifest) -> bool:
        return live_stack(records, release.product, release.environment)[-1] == release.digest

    return sorted(found.releases, key=lambda digest: (is_live(found.releases[digest]), digest))


def _revoke(parts: Parts, digest: Digest, begun: AuditRecord) -> None:
    release = parts.store.get_manifest(digest, ReleaseManifest)
    with parts.locks.hold(f"live-{release.product}"):
        records = parts.log.records()
        if digest in revoked_releases(records):
            return
        stack = live_stack(records, release.product, release.environment)
        live = stack[-1] == digest
        body: dict[str, JsonValue] = {
            "environment": release.environment,
            "release": digest,
            "reason": "it learned from rows that were erased",
            "erasure": begun.digest,
            "live": live,
            "fallback": next((each for each in reversed(stack) if each != digest), None) if live else None,
        }
        parts.log.append("release.revoked", release.product, body, actor="erasure")


def _take_off_routes(parts: Parts, products: Sequence[Product], found: Derived) -> None:
    try:
        reconcile(parts, products)
    except AssayError as error:
        log.warning("a release that stays could not be made ready, the reconciler goes on trying: %s", error)
    try:
        for weights in sorted({release.weights for release in found.releases.values()}):
            parts.server.unload(weights)
    except Unavailable as error:
        log.info("no server holds the revoked adapters: %s", error)
    if named := _routed(parts, products, found):
        raise Unavailable(f"{named}: the erasure goes on with `assay erase --resume`")


def _routed(parts: Parts, products: Sequence[Product], found: Derived) -> str:
    """Where a revoked release is still named; nothing when nowhere."""
    table = read_routes(parts.home)
    for product in products if found.releases else ():
        route = table.of(product.name)
        if route and {route.champion, route.previous, route.live_challenger(), route.shadow} & found.releases.keys():
            return f"the route of {product.name} still names a revoked release"
        if parts.registry.alias(product.name, "champion") in found.releases:
            return f"the registry's champion of {product.name} still is a revoked release"
    return ""


def _propose(parts: Parts, found: Derived, begun: AuditRecord, past_runs: PastRuns) -> None:
    """A record for each product that has something to train anew, by its newest checkpoint; it starts nothing."""
    records = parts.log.records()
    proposed = {record.product for record in _proposals(records, begun)}
    recorded = [str(record.body["checkpoint"]) for record in records if record.event == "checkpoint.recorded"]
    newest = {found.checkpoints[each].product: each for each in recorded if each in found.checkpoints}
    for product, checkpoint in sorted(newest.items()):
        if product in proposed:
            continue
        sets = found.checkpoints[checkpoint].datasets
        manifests = [parts.store.get_manifest(digest, DatasetManifest) for digest in sets]
        proposal = RetrainProposal(
            product=product,
            training_rows=sum(manifest.counts.rows_out for manifest in manifests),
            erased_rows=sum(len(erased_rows(parts, manifest)) for manifest in manifests),
            effort_seconds=effort(past_runs(product)),
        )
        parts.log.append("retrain.proposed", product, {"erasure": begun.digest, **proposal.payload()}, actor="erasure")


def _prove(parts: Parts, products: Sequence[Product], concerned: Family, found: Derived) -> tuple[str, ...]:
    """What a look at the stores shows now. Raises `Unavailable` naming what does not hold yet."""
    held = parts.datasets.held(concerned.subjects)
    revoked = revoked_releases(parts.log.records())
    shown = {
        "The subject's key is destroyed: the names of its rows can be tied to no content any more.": (
            parts.keyring.erased(concerned.subjects) == concerned.subjects
        ),
        "No row shard and no quarantine file holds content of these rows; every one was read again.": held.content == 0,
        "No unfinished training run keeps these rows or what it learned from them.": (
            not runs_with(parts.home / "training", parts.checkpoints, concerned.rows)
        ),
        "No kept answer of the subject, and no feedback by it or on such an answer, is in the store of feedback.": (
            not parts.feedback.held(concerned.subjects)
        ),
        "No sample of what a derived model answered in evaluation is in the store.": (
            not any(parts.store.has(blob) for blob in found.samples)
        ),
        "Nor is any answer of such a model kept for another evaluation.": not parts.answers.held(found.weights()),
        "Every registered release that learned from these rows is revoked in the audit log.": (
            found.releases.keys() <= revoked.keys()
        ),
        "No route and no registry alias names such a release.": not _routed(parts, products, found),
    }
    for sentence, holds in shown.items():
        if not holds:
            raise Unavailable(f"not so yet: {sentence} Do the same again: `assay erase --resume`")
    return tuple(shown)


def _receipt(
    parts: Parts, begun: AuditRecord, concerned: Family, found: Derived, proved: tuple[str, ...]
) -> ErasureReceipt:
    subject = str(begun.body["subject"])
    records = parts.log.records()
    receipt = ErasureReceipt(
        subject=subject,
        reason=str(begun.body["reason"]),
        begun=begun.digest,
        rows=tuple(sorted(concerned.rows)),
        kept_rows=concerned.kept,
        sources=concerned.sources,
        data_sets=found.held.data_sets,
        quarantines=found.held.quarantines,
        checkpoints=tuple(sorted(found.checkpoints)),
        weights=tuple(sorted({step.weights for step in found.checkpoints.values()})),
        models=tuple(sorted(found.models)),
        releases=tuple(sorted(found.releases)),
        samples=found.samples,
        routes=tuple(_taken(record) for record in records if _was_live(record, begun)),
        retraining=tuple(_proposal(record) for record in _proposals(records, begun)),
        proved=proved,
        not_proved=NOT_PROVED,
        log_head=parts.log.signed_head(),
    )
    digest = parts.store.put_manifest(receipt)
    body: dict[str, JsonValue] = {"subject": subject, "receipt": digest, "begun": begun.digest}
    parts.log.append("erasure.completed", ALL, body, actor="erasure")
    return receipt


def _about(records: Sequence[AuditRecord], event: str, subject: str) -> AuditRecord | None:
    return next((r for r in records if r.event == event and r.body["subject"] == subject), None)


def _was_live(record: AuditRecord, begun: AuditRecord) -> bool:
    return record.event == "release.revoked" and record.body["erasure"] == begun.digest and record.body["live"] is True


def _taken(record: AuditRecord) -> RouteTaken:
    named = {name: record.body[name] for name in ("environment", "release", "fallback")}
    return RouteTaken.model_validate({"product": record.product, **named})


def _proposals(records: Sequence[AuditRecord], begun: AuditRecord) -> list[AuditRecord]:
    return [r for r in records if r.event == "retrain.proposed" and r.body["erasure"] == begun.digest]


def _proposal(record: AuditRecord) -> RetrainProposal:
    return RetrainProposal.model_validate({k: v for k, v in record.body.items() if k != "erasure"})
