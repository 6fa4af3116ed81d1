"""Where the pages about a release or a verdict lie, for people to open, and those that were kept with a release."""

from collections.abc import Mapping
from pathlib import Path

from data_contracts.digests import Digest, hex_of
from data_contracts.errors import Missing, Refused, Tampered
from evals.report import Report
from pipelines.stages.protocols import Parts
from pipelines.stages.release.attestation import attestation_of
from pipelines.stages.release.registered import registration


def report_folder(home: Path, about: Digest) -> Path:
    """Of a release; of a verdict where nothing was released."""
    return home / "reports" / hex_of(about)[:16]


def write_report(folder: Path, report: Report, mode: int = 0o644) -> Path:
    """``report.html`` and ``report.md``; the page's path."""
    pages = {"report.md": report.markdown.encode(), "report.html": report.html.encode()}
    return write_files(folder, pages, mode)["report.html"]


def write_files(folder: Path, files: Mapping[str, bytes], mode: int = 0o644) -> dict[str, Path]:
    """Each is whole or absent. The folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        part = folder / f".{name}.part"
        part.unlink(missing_ok=True)
        part.touch(mode)
        part.write_bytes(data)
        part.replace(folder / name)
    return {name: folder / name for name in files}


def kept_page(parts: Parts, release: Digest, name: str = "report.html") -> bytes:
    """A page of a registered release, byte by byte as its registration names it; the copy for people may be another.

    Raises `Refused` where none was kept, `Tampered` or `Missing` where it is not what was registered.
    """
    records = parts.log.records()
    if registration(records, release) is None:
        raise Refused(f"{release} is not a registered release: the audit log has no record of it")
    try:
        attestation = attestation_of(parts, records, release)
        if attestation is None or name not in attestation.files:
            raise Refused(f"no {name} was kept with release {release}: draw one (assay dossier)")
        if attestation.release != release:
            raise Tampered(f"its attestation {attestation.digest} is of release {attestation.release}")
        return parts.store.get_bytes(attestation.files[name])
    except (Tampered, Missing) as error:
        raise type(error)(f"{name} of release {release} is not what was registered: {error}") from error
