"""A release as files that other servers load, still bound to the chain: every byte is digested and signed, the audit
log names it, and it has answered in its new form as the release did when it was judged."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import JsonValue, ValidationError

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest, canonical_json, sha256_bytes, tree_digest, tree_files
from data_contracts.errors import AssayError, BadInput, Refused
from data_contracts.lifecycle import follow
from data_contracts.manifests import BaseManifest, ExportManifest, ModelManifest, ReleaseManifest, SuiteAgreement
from data_contracts.verdicts import EvalResult, GateVerdict
from evals.decoding import Decoding
from evals.protocols import ChatModel
from evals.shipped import SUBJECT, TOLERANCE, agreement, to_ask
from evals.suite import load_suites
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.attestation import SIGNATURE
from pipelines.stages.release.audit import check_log
from pipelines.stages.release.evidence import (
    check_card,
    check_erasure,
    check_model,
    check_revocation,
    check_verdict,
    check_weights,
)
from pipelines.stages.serve.merged import FORMAT

MANIFEST = "export.json"
APPROVED = ("staging", "production", "deprecated")
"""The states of releases that a reviewer let go."""

Told = Callable[[str, int, int], None]
"""Suite, how many items of it are answered, and how many there are."""


class Source(NamedTuple):
    """What an export is made from: verified folders of base and weights (``whole``: those are a model by themselves),
    the text of the chat template, a name, and the release's digest."""

    base: Path
    weights: Path
    whole: bool
    template: str
    name: str
    release: Digest


class Exporter(Protocol):
    """One format. `resources.merged_model` and `resources.gguf_model` implement it."""

    @property
    def format(self) -> str: ...
    def tools(self) -> dict[str, str]:
        """Versions of what writes it."""
        ...

    def write(self, source: Source, folder: Path) -> None:
        """Into an existing folder; equal sources give equal bytes. Raises `Refused` for a model that the format cannot
        hold."""
        ...

    def open(self, folder: Path) -> ChatModel:
        """What was written, to be asked."""
        ...


def export(
    parts: Parts, product: Product, digest: Digest, exporter: Exporter, out: Path, items: int, told: Told
) -> ExportManifest:
    """Write the release to the new folder ``out``, whole or not at all. Up to ``items`` of each suite are asked. An
    ``out`` that holds this export already is left as it is.

    Raises `Refused` for a release that nobody approved or that does not hold any more, and where more than `TOLERANCE`
    of a suite's items score otherwise than on record; `BadInput` where ``out`` holds something else.
    """
    records = check_log(parts.log, parts.signatures)
    release = _releasable(parts, records, digest)
    if out.exists():
        return _same(parts, records, release, exporter.format, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as aside:
        folder = Path(aside) / out.name
        folder.mkdir()
        with parts.store.opened(release.weights) as weights:
            exporter.write(_source(parts, release, weights), folder)
        _add_papers(parts, release, folder)
        manifest = _judged(parts, product, release, exporter, folder, items, told)
        check_agreement(manifest.agreement)
        if exporter.format == FORMAT and product.serving.placement == "merged":
            parts.store.put_tree(folder, release.tenant)  # to be served: see `pipelines.stages.serve.merged`
        (folder / MANIFEST).write_bytes(canonical_json(manifest.payload()))
        (folder / SIGNATURE).write_bytes(parts.signer.sign(folder))
        parts.store.put_manifest(manifest)
        body: dict[str, JsonValue] = {"release": digest, "export": manifest.digest, "format": manifest.format}
        parts.log.append("release.exported", release.product, body, actor="cli")
        folder.rename(out)
    return manifest


def check_export(parts: Parts, records: Sequence[AuditRecord], release: Digest, folder: Path) -> ExportManifest:
    """Raises `Refused` unless the folder is an export of this release that the audit log names, byte by byte."""
    data = (folder / MANIFEST).read_bytes()
    named = [record.body for record in records if record.event == "release.exported"]
    if not any(body["export"] == sha256_bytes(data) and body["release"] == release for body in named):
        raise Refused(f"{folder / MANIFEST} is not of an export of {release} that the audit log names")
    manifest = ExportManifest.model_validate_json(data)
    parts.signer.check(folder, (folder / SIGNATURE).read_bytes(), manifest.public_key)
    if _tree(folder) != manifest.tree:
        raise Refused(f"{folder} is not the tree {manifest.tree} that its manifest names")
    return manifest


def check_agreement(found: Sequence[SuiteAgreement]) -> None:
    """Raises `Refused` naming the suites on which the artifact is not the release any more."""
    apart = [
        f"{len(each.differ)} of {each.n} items of {each.suite} ({each.metric} {each.recorded:.3f}, {each.exported:.3f})"
        for each in found
        if each.share > TOLERANCE
    ]
    if apart:
        raise Refused(
            f"not exported, nothing is written: more than {TOLERANCE:.0%} score otherwise than the release did: "
            + "; ".join(apart)
        )


def _releasable(parts: Parts, records: Sequence[AuditRecord], digest: Digest) -> ReleaseManifest:
    standing = follow(records).standings.get(digest)
    if standing is None:
        raise Refused(f"{digest} is not a registered release: `assay releases` lists them")
    check_revocation(records, digest)
    if standing.state not in APPROVED:
        raise Refused(
            f"{digest} is in {standing.state}: only what a reviewer approved leaves the line (`assay approve`)"
        )
    release = parts.store.get_manifest(digest, ReleaseManifest)
    model = check_model(parts.store, release)
    check_weights(parts.store, model)
    check_erasure(parts, model)
    check_verdict(parts.store, release)
    check_card(parts.store, release)
    return release


def _same(
    parts: Parts, records: Sequence[AuditRecord], release: ReleaseManifest, format: str, out: Path
) -> ExportManifest:
    try:
        manifest = check_export(parts, records, release.digest, out)
    except (AssayError, ValidationError, OSError) as error:
        raise BadInput(f"{out} is there already, and is no export of this release: name a new folder") from error
    if manifest.format != format:
        raise BadInput(f"{out} holds this release as {manifest.format}: name a new folder")
    return manifest


def _source(parts: Parts, release: ReleaseManifest, weights: Path) -> Source:
    model = parts.store.get_manifest(release.model, ModelManifest)
    base = parts.store.get_manifest(release.base, BaseManifest)
    return Source(
        base=parts.store.tree(base.tree),
        weights=weights,
        whole=model.method == "full",
        template=parts.store.get_bytes(release.template).decode(),
        name=release.product,
        release=release.digest,
    )


def _add_papers(parts: Parts, release: ReleaseManifest, folder: Path) -> None:
    """Model card with its terms, bill of materials, policy, and the manifests that bind base, model and release."""
    papers = {
        "README.md": release.card,
        "chat_template.jinja": release.template,
        "policy.json": release.policy,
        "serving.json": release.serving_config,
        "manifests/release.json": release.digest,
        "manifests/model.json": release.model,
        "manifests/base.json": release.base,
        **({"bom.cdx.json": release.bom} if release.bom else {}),
    }
    for name, digest in papers.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(parts.store.get_bytes(digest))


def _judged(
    parts: Parts,
    product: Product,
    release: ReleaseManifest,
    exporter: Exporter,
    folder: Path,
    items: int,
    told: Told,
) -> ExportManifest:
    store = parts.store
    results = store.get_manifest(release.verdict, GateVerdict).results
    asked, left_out = to_ask(load_suites(product), results)
    if not asked:
        raise Refused(f"not exported: no suite of {release.digest} is answered in text, to compare the export by")
    decoding = Decoding(max_tokens=store.get_json(release.serving_config)["serving"]["max_tokens"])
    model = exporter.open(folder)
    found = tuple(
        agreement(
            suite,
            store.get_manifest(results[f"{suite.name}/{SUBJECT}"], EvalResult),
            model,
            decoding,
            items,
            parts,
            lambda done, total, name=suite.name: told(name, done, total),  # type: ignore[misc]
        )
        for suite in asked
    )
    return ExportManifest(
        product=release.product,
        release=release.digest,
        format=exporter.format,
        base=release.base,
        weights=release.weights,
        template=release.template,
        tree=_tree(folder),
        tools=exporter.tools(),
        engine=model.engine(),
        agreement=found,
        left_out=tuple(left_out),
        public_key=parts.signer.public_key(),
    )


def _tree(folder: Path) -> Digest:
    return tree_digest({name: each for name, each in tree_files(folder).items() if name not in (MANIFEST, SIGNATURE)})
