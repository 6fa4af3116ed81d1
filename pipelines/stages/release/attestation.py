"""The files of a release, with its provenance and a signature over all of them; and whether they still are those."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest, canonical_json, hex_of
from data_contracts.errors import Missing, Refused, Shredded, Tampered
from data_contracts.manifests import ModelManifest, ReleaseManifest
from data_contracts.provenance import PREDICATE, STATEMENT, Attestation
from data_contracts.store import ArtifactStore
from pipelines.stages.protocols import Parts
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets
from pipelines.stages.release.provenance import dependencies, statement
from pipelines.stages.release.registered import registration

PROVENANCE = "provenance.intoto.json"
SIGNATURE = "model.sig"
ADAPTER = "adapter/"
_MODULES = tuple(f"pipelines.stages.release.{name}" for name in ("attestation", "provenance"))

T = TypeVar("T")


def attest(parts: Parts, release: ReleaseManifest, pages: Mapping[str, bytes]) -> Attestation:
    """Name, describe and sign every file of a release; ``pages`` are those that are in no manifest. Once made, the same
    is returned."""
    key = action_key("release.attest", code_version(*_MODULES), None, [release.digest])
    return remembered(parts.store, key, Attestation, lambda: _attest(parts, release, pages))[0]


def attestation_of(parts: Parts, records: Sequence[AuditRecord], release: Digest) -> Attestation | None:
    """What its registration names; ``None`` for a release of an earlier edition."""
    record = registration(records, release)
    named = record.body.get("attestation") if record else None
    return None if named is None else parts.store.get_manifest(str(named), Attestation)


def check_attestation(parts: Parts, release: ReleaseManifest, records: Sequence[AuditRecord]) -> None:
    """Provenance, every file and the signature. Raises `AssayError` naming the file; a release of an earlier edition
    passes."""
    attestation = attestation_of(parts, records, release.digest)
    if attestation is not None:
        check_provenance(parts, release, attestation)
        check_signature(parts, attestation)


def check_provenance(parts: Parts, release: ReleaseManifest, attestation: Attestation) -> int:
    """The statement is about these very files and what the release was made from; how many files. Raises `AssayError`
    naming what differs."""
    model = parts.store.get_manifest(release.model, ModelManifest)
    for name, digest in _files(parts.store, release, model).items():
        if attestation.files.get(name) != digest:
            raise Refused(f"{name}: the attested file is {attestation.files.get(name, 'none')}, the release's {digest}")
    document = json.loads(parts.store.get_bytes(attestation.provenance))
    if (document["_type"], document["predicateType"]) != (STATEMENT, PREDICATE):
        raise Refused(f"{PROVENANCE} is no in-toto statement of SLSA provenance")
    subjects = {each["name"]: f"sha256:{each['digest']['sha256']}" for each in document["subject"]}
    for name in sorted(subjects.keys() | attestation.files.keys()):
        if subjects.get(name) != attestation.files.get(name):
            raise Refused(f"{PROVENANCE} does not name {name} as it was attested")
    named = document["predicate"]["buildDefinition"]["resolvedDependencies"]
    for each in dependencies(parts.store, model, checkpoints(parts.store, model)):
        if each not in named:
            raise Refused(f"{PROVENANCE} does not name the {each['name']} that the model was made from")
    return len(subjects)


def check_signature(parts: Parts, attestation: Attestation, folder: Path | None = None) -> None:
    """The signature is over every file as the store has it, or as ``folder`` does. Raises `AssayError` naming the file
    that differs."""
    signature = parts.store.get_bytes(attestation.signature)
    if folder is not None:
        parts.signer.check(folder, signature, attestation.public_key)
        return
    with unpacked(parts.store, attestation, signed=False) as whole:
        parts.signer.check(whole, signature, attestation.public_key)


@contextmanager
def unpacked(store: ArtifactStore, attestation: Attestation, signed: bool = True) -> Iterator[Path]:
    """The release as one folder, with or without its signature, in memory where that can be. Raises `Tampered`,
    `Missing` or `Shredded` naming the file."""
    files = attestation.files | {PROVENANCE: attestation.provenance}
    release = store.get_manifest(attestation.release, ReleaseManifest)
    with store.scratch() as place, _adapter(store, release) as adapter:
        folder = place / f"release-{hex_of(release.digest)[:16]}"
        for name, digest in (files | ({SIGNATURE: attestation.signature} if signed else {})).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name.startswith(ADAPTER):
                shutil.copyfile(adapter / name.removeprefix(ADAPTER), folder / name)
            else:
                (folder / name).write_bytes(_named(name, partial(store.get_bytes, digest)))
        yield folder


@contextmanager
def _adapter(store: ArtifactStore, release: ReleaseManifest) -> Iterator[Path]:
    with ExitStack() as opened:
        yield _named("the adapter", lambda: opened.enter_context(store.opened(release.weights)))


def _attest(parts: Parts, release: ReleaseManifest, pages: Mapping[str, bytes]) -> Attestation:
    store = parts.store
    model = store.get_manifest(release.model, ModelManifest)
    files = _files(store, release, model) | {name: store.put_bytes(page) for name, page in pages.items()}
    provenance = store.put_bytes(canonical_json(statement(parts, release, model, files)))
    attestation = Attestation(
        release=release.digest,
        files=files,
        provenance=provenance,
        signature=provenance,  # until there is one: `unpacked` without it is what gets signed
        public_key=parts.signer.public_key(),
    )
    with unpacked(store, attestation, signed=False) as folder:
        return attestation.model_copy(update={"signature": store.put_bytes(parts.signer.sign(folder))})


def _files(store: ArtifactStore, release: ReleaseManifest, model: ModelManifest) -> dict[str, Digest]:
    """Path in the release -> digest, of everything that follows from the release itself. A manifest's digest is that of
    its file."""
    steps = checkpoints(store, model)
    sets = datasets(store, training_sets(model, steps))
    manifests = {
        "release": release.digest,
        "model": release.model,
        "verdict": release.verdict,
        "base": release.base,
        **{f"checkpoint-{step.stage}": step.digest for step in steps},
        **{f"dataset-{each.stage}-{hex_of(digest)[:8]}": digest for digest, each in sets.items()},
    }
    documents = {
        "README.md": release.card,
        "card-diff.md": release.card_diff,
        "chat_template.jinja": release.template,
        "policy.json": release.policy,
        "serving.json": release.serving_config,
        **({"bom.cdx.json": release.bom} if release.bom else {}),
    }
    return {
        **{f"{ADAPTER}{name}": digest for name, digest in store.get_json(release.weights).items()},
        **{f"manifests/{name}.json": digest for name, digest in manifests.items()},
        **documents,
    }


def _named(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (Tampered, Missing, Shredded) as error:
        raise type(error)(f"{name}: {error}") from error
