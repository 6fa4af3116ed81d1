"""A tenant's releases in one file, and back from it: weights, manifests, verdicts, approvals, and the log's records of
its products.

No rows: those are kept, and erased, where they are. Nor a base, which is not the tenant's. What was revoked, because a
person was erased whose rows it learned from, is not archived, and not brought back from an archive that is older.
"""

import io
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic import JsonValue, ValidationError

from data_contracts.archives import TenantArchive
from data_contracts.chain import ALL, AuditRecord, revoked_releases
from data_contracts.digests import Digest, canonical_json, hex_of, sha256_bytes, tree_digest, tree_files
from data_contracts.errors import Missing, Refused, Shredded, Tampered
from data_contracts.manifests import ModelManifest, ReleaseManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import EvalResult, GateVerdict
from pipelines.stages.protocols import Parts
from pipelines.stages.release.attestation import ADAPTER, attestation_of
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets

_FIRST = "archive.json"
_RECORDS = "records.jsonl"
_NAMED = ("approval", "canary", "check", "cause")
"""Fields of audit records that name a document about a release."""


class Restored(NamedTuple):
    """``revoked``: releases of the archive whose weights stay away, since they were revoked after it."""

    archive: TenantArchive
    releases: tuple[Digest, ...]
    revoked: tuple[Digest, ...]


def archive(parts: Parts, tenant: str, file: AbstractContextManager[BinaryIO]) -> TenantArchive:
    """Write all registered releases of a tenant; the audit log names the archive before the file appears.

    Raises `Missing` for a tenant without releases, `Tampered` or `Missing` for what the store does not hold as it was.
    """
    records = parts.log.records()
    found = _describe(parts, tenant, records)
    named = {*found.releases, *found.left_out}
    products = {parts.store.get_manifest(release, ReleaseManifest).product for release in named}
    body: dict[str, JsonValue] = {"tenant": tenant, "archive": found.digest, "releases": [*sorted(found.releases)]}
    with file as out:
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, _FIRST, canonical_json(found.payload()))
            _add(tar, _RECORDS, b"".join(canonical_json(r.payload()) + b"\n" for r in records if r.product in products))
            for digest in found.documents:
                _add(tar, f"documents/{hex_of(digest)}", parts.store.get_bytes(digest))
            for digest, files in found.trees.items():
                with parts.store.opened(digest) as folder:
                    for name in files:
                        member = _member(f"trees/{hex_of(digest)}/{name}", (folder / name).stat().st_size)
                        with (folder / name).open("rb") as source:
                            tar.addfile(member, source)
        parts.log.append("tenant.archived", ALL, body, actor="cli")
    return found


def restore(parts: Parts, file: AbstractContextManager[BinaryIO]) -> Restored:
    """Put what an archive holds back into the store, each under its own digest, weights sealed for the tenant, who gets
    a new key where it was shredded; what is there and whole stays.

    Raises `Refused` for an archive that this installation's audit log does not name, `Tampered` for one that does not
    hold what it says.
    """
    records = parts.log.records()
    with parts.store.scratch() as folder:
        with file as source:
            found = _unpack(source, folder, records)
        gone = revoked_releases(records).keys()
        kept = tuple(sorted(found.releases.keys() - gone))
        with parts.locks.hold(f"tenant-{found.tenant}"):  # a shred holds it too
            parts.tenant_keys.renew(found.tenant)
            for document in found.documents:
                _put_document(parts.store, document, (folder / "documents" / hex_of(document)).read_bytes())
            for tree in sorted(_trees(found, kept)):
                _put_tree(parts.store, tree, folder / "trees" / hex_of(tree), found.tenant)
            body: dict[str, JsonValue] = {"tenant": found.tenant, "archive": found.digest, "releases": list(kept)}
            parts.log.append("tenant.restored", ALL, body, actor="cli")
    return Restored(found, kept, tuple(sorted(found.releases.keys() & gone)))


def _describe(parts: Parts, tenant: str, records: Sequence[AuditRecord]) -> TenantArchive:
    store = parts.store
    revoked = revoked_releases(records)
    releases: dict[Digest, tuple[Digest, ...]] = {}
    left_out: list[Digest] = []
    documents: set[Digest] = set()
    for release in _releases(records):
        manifest = store.get_manifest(release, ReleaseManifest)
        if manifest.tenant != tenant:
            continue
        documents |= set(_documents(parts, manifest, records))
        if release in revoked:
            left_out.append(release)
        else:
            steps = checkpoints(store, store.get_manifest(manifest.model, ModelManifest))
            releases[release] = tuple(sorted({step.weights for step in steps}))
    if not documents:
        raise Missing(f"tenant {tenant} has no registered release: `assay releases` lists them")
    trees = sorted({tree for made_through in releases.values() for tree in made_through})
    return TenantArchive(
        tenant=tenant,
        releases=releases,
        left_out=tuple(left_out),
        documents=tuple(sorted(documents)),
        trees={tree: store.get_json(tree) for tree in trees},
        log_head=parts.log.signed_head(),
    )


def _releases(records: Sequence[AuditRecord]) -> list[Digest]:
    return list(dict.fromkeys(str(r.body["release"]) for r in records if r.event == "release.registered"))


def _documents(parts: Parts, release: ReleaseManifest, records: Sequence[AuditRecord]) -> Iterator[Digest]:
    """All blobs that `assay verify` reads of a release, and those that its approvals and checks are."""
    store = parts.store
    model = store.get_manifest(release.model, ModelManifest)
    steps = checkpoints(store, model)
    yield from (release.digest, release.model, release.base, release.template, release.verdict, release.card)
    yield from (release.card_diff, release.policy, release.serving_config, *([release.bom] if release.bom else []))
    terms = store.get_json(release.policy)
    yield from (terms["data_policy"], terms["gate_policy"])
    verdict = store.get_manifest(release.verdict, GateVerdict)
    for digest in (*verdict.results.values(), *chain.from_iterable(verdict.reruns.values())):
        result = store.get_manifest(digest, EvalResult)
        yield from (digest, *([result.decoding] if store.has(result.decoding) else []))
        for judged in result.judged.values():
            yield from [judged.policy, *([judged.calibration] if judged.calibration else [])]
    for step in steps:
        yield from (step.digest, step.recipe, step.template, step.curve, step.environment)
        yield from [step.teacher] if step.teacher else []
    for digest, manifest in datasets(store, training_sets(model, steps)).items():
        yield from (digest, *([manifest.policy] if manifest.policy and store.has(manifest.policy) else []))
    if attestation := attestation_of(parts, records, release.digest):
        yield from (attestation.digest, attestation.provenance, attestation.signature)
        yield from (digest for name, digest in attestation.files.items() if not name.startswith(ADAPTER))
    for record in records:
        if record.product == release.product:
            yield from (str(record.body[name]) for name in _NAMED if name in record.body)


def _unpack(source: BinaryIO, folder: Path, records: Sequence[AuditRecord]) -> TenantArchive:
    """Every document, and the trees of releases that were not revoked, as files of ``folder``."""
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            members = iter(tar)
            found = _first(tar, next(members, None), records)
            waiting = _names(found)
            unwanted = found.trees.keys() - _trees(found, found.releases.keys() - revoked_releases(records).keys())
            skipped = {hex_of(tree) for tree in unwanted}
            for member in members:
                if member.name not in waiting:
                    raise Tampered(f"the archive holds {member.name}, which it does not name")
                waiting.remove(member.name)
                data = tar.extractfile(member)
                if data is None:
                    raise Tampered(f"the archive holds {member.name}, which is no file")
                if member.name == _RECORDS or member.name.split("/")[1] in skipped:
                    continue
                (folder / member.name).parent.mkdir(parents=True, exist_ok=True)
                with data, (folder / member.name).open("wb") as out:
                    shutil.copyfileobj(data, out, 1 << 20)
    except tarfile.TarError as error:
        raise Tampered(f"it is no archive of `assay tenant archive`, or not a whole one: {error}") from error
    if waiting:
        raise Tampered(f"the archive names {sorted(waiting)[0]} and does not hold it")
    return found


def _first(tar: tarfile.TarFile, member: tarfile.TarInfo | None, records: Sequence[AuditRecord]) -> TenantArchive:
    """What the archive says that it holds. Its names of files are believed, since the audit log has its digest."""
    data = None if member is None or member.name != _FIRST else tar.extractfile(member)
    if data is None:
        raise Tampered(f"it is no archive of `assay tenant archive`: it does not begin with {_FIRST}")
    try:
        found = TenantArchive.model_validate_json(data.read())
    except ValidationError as error:
        raise Tampered(f"{_FIRST} cannot be read: {error}") from error
    if not any(r.event == "tenant.archived" and r.body["archive"] == found.digest for r in records):
        raise Refused(
            f"the audit log names no archive {found.digest} of tenant {found.tenant}: restore it where it was made, in "
            "the installation that has that log (HOME/chain)"
        )
    return found


def _names(found: TenantArchive) -> set[str]:
    documents = {f"documents/{hex_of(digest)}" for digest in found.documents}
    return {_RECORDS} | documents | {f"trees/{hex_of(t)}/{name}" for t, files in found.trees.items() for name in files}


def _trees(found: TenantArchive, releases: Iterable[Digest]) -> set[Digest]:
    return {tree for release in releases for tree in found.releases[release]}


def _put_document(store: ArtifactStore, digest: Digest, data: bytes) -> None:
    if sha256_bytes(data) != digest:
        raise Tampered(f"document {digest} of the archive has other bytes than its name says")
    try:
        store.get_bytes(digest)
    except (Missing, Tampered):
        store.delete(digest)
        store.put_bytes(data)


def _put_tree(store: ArtifactStore, digest: Digest, folder: Path, tenant: str) -> None:
    if tree_digest(tree_files(folder)) != digest:
        raise Tampered(f"tree {digest} of the archive has other files than its name says")
    try:
        with store.opened(digest):
            return
    except (Missing, Tampered, Shredded):
        store.delete(digest)
        store.put_tree(folder, tenant)
    with store.opened(digest):
        pass


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Without time and owner: equal content makes equal bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_member(name, len(data)), io.BytesIO(data))
