"""Walk a release's chain offline, from the trust root to the route: every digest, every row, every signature.

Each link is checked by itself, so that one broken link does not hide another; what only makes sense on an intact link
before it is left out when that one is broken.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_contracts.chain import AuditRecord, ChainBroken, check_chain
from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Refused
from data_contracts.manifests import BaseManifest, CheckpointManifest, DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.provenance import Attestation
from pipelines.recipes.recipe import Recipe
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.protocols import Parts, Signatures
from pipelines.stages.release.attestation import attestation_of, check_provenance, check_signature
from pipelines.stages.release.audit import check_head, check_log, log_keys
from pipelines.stages.release.evidence import check_card, check_model, check_verdict, check_weights
from pipelines.stages.release.export import MANIFEST, check_export
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets
from pipelines.stages.release.registered import registration
from pipelines.stages.release.verify_live import walk_live
from pipelines.stages.release.walk import Link, Walk


def verify(
    parts: Parts, digest: Digest, signatures: Signatures, head: Digest | None = None, files: Path | None = None
) -> list[Link]:
    """Every link of this release, in order. ``signatures`` is the trust root, ``head`` a log head noted earlier,
    ``files`` a folder that somebody got as this release, or as an export of it.

    Reads the store, the rows, the ledger, the log and the route table of ``parts``; no server, no network.
    """
    walk = Walk()
    records = _walk_log(walk, parts, signatures, head)
    release = walk.step("release", lambda: _release(parts, digest, records))
    if release is None:
        return walk.links
    if records is not None:
        walk.step("release head", lambda: _release_head(release, records, signatures))
    model = walk.step("model", lambda: (check_model(parts.store, release), release.model))
    walk.step("base", lambda: _base(parts, release))
    walk.step("template", lambda: (parts.store.get_bytes(release.template), release.template))
    if model is not None:
        walk.step("adapter", lambda: _adapter(parts, model))
        _walk_training(walk, parts, model)
    walk.step("verdict", lambda: _verdict(parts, release))
    walk.step("policy", lambda: _policy(parts, release))
    walk.step("card", lambda: _card(parts, release))
    if records is not None:
        _walk_attestation(walk, parts, release, records, files)
        walk_live(walk, parts, release, records, signatures)
    return walk.links


def _walk_log(walk: Walk, parts: Parts, signatures: Signatures, head: Digest | None) -> list[AuditRecord] | None:
    records = walk.step("audit log", lambda: _records(parts, head))
    if records is not None:
        walk.step("trust root", lambda: _signed_log(parts, records, signatures))
    return records


def _records(parts: Parts, head: Digest | None) -> tuple[list[AuditRecord], str]:
    records = parts.log.records()
    if not records:
        raise ChainBroken("audit log: it is empty or gone")
    tip = check_chain(records)
    if head is not None and head not in {record.digest for record in records}:
        raise ChainBroken(f"audit log: the head {head}, noted earlier, is not in it: it was cut or rewritten")
    return records, f"{len(records)} records, head {tip}"


def _signed_log(parts: Parts, records: Sequence[AuditRecord], signatures: Signatures) -> tuple[None, str]:
    check_log(parts.log, signatures)
    rotations = len(log_keys(records, signatures))
    return None, f"it holds the key that signs the log's heads ({rotations} rotations since)"


def _release(parts: Parts, digest: Digest, records: Sequence[AuditRecord] | None) -> tuple[ReleaseManifest, str]:
    release = parts.store.get_manifest(digest, ReleaseManifest)
    if records is not None and registration(records, digest) is None:
        raise Refused(f"the audit log has no record that {digest} was registered")
    return release, digest


def _release_head(release: ReleaseManifest, records: Sequence[AuditRecord], signatures: Signatures) -> tuple[None, str]:
    check_head(records, log_keys(records, signatures), release.log_head, signatures)
    return None, f"the log's head at registration, {release.log_head.sequence}, is in the log and signed"


def _base(parts: Parts, release: ReleaseManifest) -> tuple[None, str]:
    base = parts.store.get_manifest(release.base, BaseManifest)
    parts.store.tree(base.tree)
    return None, f"{base.name}, every byte of {base.tree}"


def _adapter(parts: Parts, model: ModelManifest) -> tuple[None, str]:
    check_weights(parts.store, model)
    return None, f"every byte of {model.weights}, trained on this base"


def _walk_attestation(
    walk: Walk, parts: Parts, release: ReleaseManifest, records: Sequence[AuditRecord], files: Path | None
) -> None:
    attestation = walk.step("attestation", lambda: _attestation(parts, release, records))
    if attestation is not None:
        walk.step("provenance", lambda: _provenance(parts, release, attestation))
        walk.step("signature", lambda: _signature(parts, attestation))
    if files is not None:
        walk.step("files", lambda: _copy(parts, release, records, attestation, files))


def _attestation(
    parts: Parts, release: ReleaseManifest, records: Sequence[AuditRecord]
) -> tuple[Attestation | None, str]:
    attestation = attestation_of(parts, records, release.digest)
    return attestation, "of an earlier edition: none" if attestation is None else attestation.digest


def _provenance(parts: Parts, release: ReleaseManifest, attestation: Attestation) -> tuple[None, str]:
    count = check_provenance(parts, release, attestation)
    return None, f"SLSA v1, about {count} files and what the model was made from"


def _signature(parts: Parts, attestation: Attestation) -> tuple[None, str]:
    check_signature(parts, attestation)
    return None, f"over {len(attestation.files) + 1} files, by the key that the registration names"


def _copy(
    parts: Parts,
    release: ReleaseManifest,
    records: Sequence[AuditRecord],
    attestation: Attestation | None,
    files: Path,
) -> tuple[None, str]:
    if (files / MANIFEST).is_file():
        manifest = check_export(parts, records, release.digest, files)
        return None, f"{files} is this release as {manifest.format}, byte by byte"
    if attestation is None:
        raise Refused(f"there is no signature to check {files} against")
    check_signature(parts, attestation, files)
    return None, f"{files} is this release, byte by byte"


def _walk_training(walk: Walk, parts: Parts, model: ModelManifest) -> None:
    recipe = walk.step("recipe", lambda: (parts.store.get_manifest(model.recipe, Recipe), model.recipe))
    steps = walk.step("checkpoints", lambda: _checkpoints(parts, model))
    if steps is not None:
        walk.step("checkpoint weights", lambda: _weights(parts, steps))
    if recipe is None or steps is None:
        return
    sets = walk.step("data manifests", lambda: _datasets(parts, model, steps))
    for digest, manifest in reversed((sets or {}).items()):
        walk.links.append(_dataset(parts, digest, manifest))


def _checkpoints(parts: Parts, model: ModelManifest) -> tuple[list[CheckpointManifest], str]:
    steps = checkpoints(parts.store, model)
    for step in steps:
        if (step.base, step.template, step.product) != (model.base, model.template, model.product):
            raise Refused(f"checkpoint {step.digest} ({step.stage}) has another base, template or product")
        parts.store.get_manifest(step.recipe, Recipe)
        if step.teacher is not None:
            parts.store.get_manifest(step.teacher, BaseManifest)
        parts.store.get_json(step.environment)
    if steps[0].weights != model.weights:
        raise Refused(f"the model's weights {model.weights} are not those of its checkpoint {model.checkpoint}")
    return steps, " from ".join(f"{step.stage} {step.digest}" for step in steps)


def _weights(parts: Parts, steps: list[CheckpointManifest]) -> tuple[None, str]:
    for weights in dict.fromkeys(step.weights for step in steps):
        with parts.store.opened(weights):
            pass
    return None, f"every byte of {len(steps)} checkpoints"


def _datasets(
    parts: Parts, model: ModelManifest, steps: list[CheckpointManifest]
) -> tuple[dict[Digest, DatasetManifest], str]:
    sets = datasets(parts.store, training_sets(model, steps))
    sources = sorted({f"{source.url} ({source.content})" for each in sets.values() for source in each.sources})
    return sets, f"{len(sets)} data sets from {', '.join(sources) or 'no named source'}"


def _dataset(parts: Parts, digest: Digest, manifest: DatasetManifest) -> Link:
    name = f"data set {manifest.stage} {digest}"
    try:
        problems = check_dataset(parts, manifest)
    except (AssayError, ValueError, KeyError, OSError) as error:
        return Link(name=name, status="broken", detail=str(error))
    broken = [problem for problem in problems if problem.kind != "erased"]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        return Link(name=name, status="broken", detail=f"{broken[0].text}{more}")
    if problems:
        detail = f"{len(problems)} of {manifest.counts.rows_out} rows were erased; names and root are intact"
        return Link(name=name, status="erased", detail=detail)
    detail = f"{manifest.counts.rows_out} rows, each with its ledger entry, root {manifest.root}"
    return Link(name=name, status="ok", detail=detail)


def _verdict(parts: Parts, release: ReleaseManifest) -> tuple[None, str]:
    verdict = check_verdict(parts.store, release)
    outcomes = Counter(criterion.outcome for criterion in verdict.criteria)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    again = sum(map(len, verdict.reruns.values()))
    stored = f"{len(verdict.results)} stored results" + (f" and {again} re-runs" if again else "")
    return None, f"{verdict.decision} comes out of {stored} again ({told})"


def _policy(parts: Parts, release: ReleaseManifest) -> tuple[None, str]:
    terms = parts.store.get_json(release.policy)
    parts.store.get_bytes(terms["data_policy"])
    parts.store.get_bytes(terms["gate_policy"])
    parts.store.get_json(release.serving_config)
    return None, f"{terms['approval']['signatures']} approvals needed; policy {release.policy}"


def _card(parts: Parts, release: ReleaseManifest) -> tuple[None, str]:
    check_card(parts.store, release)
    return None, f"{release.card}, bill of materials {release.bom or 'of an earlier edition: none'}"
