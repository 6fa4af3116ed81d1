"""Which releases there are, by the audit log: a manifest is a release once it was chained as registered."""

from collections.abc import Sequence

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest
from data_contracts.errors import BadInput, Missing
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from pipelines.stages.protocols import Parts


def registration(records: Sequence[AuditRecord], release: Digest) -> AuditRecord | None:
    """The record that made it a release; ``None`` when there is none."""
    return next((r for r in records if r.event == "release.registered" and r.body["release"] == release), None)


def latest_registered(parts: Parts, product: str) -> Digest | None:
    """The newest release of a product that was not retired, revoked or archived."""
    found = follow(parts.log.records()).standings.items()
    kept = [d for d, each in found if each.product == product and each.state not in ("retired", "archived")]
    return kept[-1] if kept else None


def awaiting_approval(parts: Parts) -> list[Digest]:
    """Unsettled releases whose displaced champion is still the live one, oldest first."""
    records = parts.log.records()
    live = live_releases(records)
    waiting: list[Digest] = []
    for digest in unsettled(records):
        release = parts.store.get_manifest(digest, ReleaseManifest)
        if live.get((release.product, release.environment)) == release.displaced_champion:
            waiting.append(digest)
    return waiting


def unsettled(records: Sequence[AuditRecord]) -> list[Digest]:
    """Registered releases that were never promoted, revoked or archived, and are not shredded, oldest first."""
    settling = ("promotion.recorded", "release.revoked", "release.archived")
    settled = {r.body["release"] for r in records if r.event in settling}
    settled |= {release for release, each in follow(records).standings.items() if each.shredded}
    registered = [str(r.body["release"]) for r in records if r.event == "release.registered"]
    return [release for release in registered if release not in settled]


def find_release(parts: Parts, beginning: str) -> Digest:
    """The registered release whose digest begins so (with or without ``sha256:``)."""
    wanted = beginning if beginning.startswith("sha256:") else f"sha256:{beginning}"
    releases = [str(r.body["release"]) for r in parts.log.records() if r.event == "release.registered"]
    found = sorted({release for release in releases if release.startswith(wanted)})
    if len(found) > 1:
        raise BadInput(f"{beginning} begins {len(found)} releases: give more characters ({', '.join(found)})")
    if not found:
        raise Missing(
            f"{beginning} is no registered release: name one by its id, never by a folder, a hub id or another digest; "
            "`assay releases` lists them"
        )
    return found[0]
