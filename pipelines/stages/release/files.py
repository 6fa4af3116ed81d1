"""Where the pages about a release or a verdict lie, for people to open."""

from collections.abc import Mapping
from pathlib import Path

from data_contracts.digests import Digest, hex_of
from evals.report import Report


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
