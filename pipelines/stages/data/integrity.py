"""Whether the rows of a data set are what its manifest names: content, names, roots, ledger, quarantine."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from data_contracts.digests import Digest, canonical_json, merkle_root, row_name, sha256_bytes
from data_contracts.errors import Missing, Tampered
from data_contracts.ledger import LedgerEntry, shared_terms
from data_contracts.manifests import DatasetManifest
from pipelines.stages.protocols import Parts, Row

_HALF_ERASED = "was erased and its content is still there: finish it with `assay erase --resume`"


class Problem(NamedTuple):
    """``erased`` is what erasure leaves (names without key and content); everything else is a broken link."""

    kind: Literal["erased", "missing", "tampered"]
    text: str


def check_dataset(parts: Parts, manifest: DatasetManifest) -> list[Problem]:
    """Every problem of a data set; empty when each name is matched by exactly one row under its subject's key."""
    return checked(parts, manifest)[1]


def checked(parts: Parts, manifest: DatasetManifest) -> tuple[list[tuple[Digest, str, Row]], list[Problem]]:
    """The rows of a data set as (name, subject, row), and its problems."""
    try:
        names = parts.datasets.names(manifest.root)
        rows = list(parts.datasets.read(manifest.root))
    except Missing as error:
        return [], [Problem("missing", str(error))]
    except Tampered as error:
        return [], [Problem("tampered", str(error))]
    problems: list[Problem] = []
    if merkle_root(name for name, _ in names) != manifest.root:
        problems.append(Problem("tampered", "the list of row names does not give the root in the manifest"))
    if not manifest.counts.balanced() or manifest.counts.rows_out != len(names):
        problems.append(Problem("tampered", "the counts in the manifest do not add up to the rows it names"))
    subjects = {subject for _, subject in names}
    keys = parts.keyring.known(subjects)
    erased = parts.keyring.erased(subjects - keys.keys())
    listed, present = Counter(names), Counter((name, subject) for name, subject, _ in rows)
    for (name, subject), times in sorted(listed.items()):
        if subject in erased:
            problems.append(Problem("erased", f"row {name} was erased"))
        elif subject not in keys:
            problems.append(Problem("missing", f"row {name} cannot be checked: its subject's key is gone, not erased"))
        elif present[name, subject] < times:
            problems.append(Problem("missing", f"row {name} is named and its content is not there"))
    for name, subject, row in rows:
        if listed[name, subject] < present[name, subject]:
            problems.append(Problem("tampered", f"row {name} was added: the data set does not name it"))
        elif subject in erased:
            problems.append(Problem("tampered", f"row {name} {_HALF_ERASED}"))
        elif subject in keys and row_name(keys[subject], row) != name:
            problems.append(Problem("tampered", f"row {name} was changed: its content does not match its name"))
    problems += _check_ledger(parts, manifest, {name for name, _ in names})
    return rows, problems + _check_parts(manifest, rows) + _check_quarantine(parts, manifest)


def erased_rows(parts: Parts, manifest: DatasetManifest) -> list[Digest]:
    """The rows of a data set whose subjects were erased since it was made."""
    names = parts.datasets.names(manifest.root)
    erased = parts.keyring.erased(subject for _, subject in names)
    return [name for name, subject in names if subject in erased]


def ledger_root(entries: Iterable[LedgerEntry]) -> Digest:
    """Merkle root of the rows' terms as the ledger has them: of each entry without its parents, which later runs may
    add to. Entries that differ in row and subject alone have all other canonical bytes in common."""
    return merkle_root(_entry_digests(entries))


def _entry_digests(entries: Iterable[LedgerEntry]) -> Iterator[Digest]:
    common: dict[tuple[object, ...], tuple[bytes, bytes, bytes]] = {}
    for entry in entries:
        terms = shared_terms(entry)
        if terms not in common:
            text = canonical_json(entry.model_copy(update={"row": "", "parents": (), "subject": ""}).payload())
            # A text inside a value has its quotation marks escaped, so that only the fields themselves are found.
            head, rest = text.split(b'"row":""')
            middle, tail = rest.split(b'"subject":""')
            common[terms] = (head + b'"row":"', b'"' + middle + b'"subject":', tail)
        head, middle, tail = common[terms]
        yield sha256_bytes(head + entry.row.encode() + middle + canonical_json(entry.subject) + tail)


def _check_ledger(parts: Parts, manifest: DatasetManifest, names: set[Digest]) -> list[Problem]:
    entries = parts.ledger.entries(names)
    if len(entries) < len(names):
        return [Problem("missing", f"row {name} has no ledger entry") for name in sorted(names - entries.keys())]
    if ledger_root(entries.values()) != manifest.facts["ledger"]:
        return [Problem("tampered", "a ledger entry of its rows is not what it was when the data set was made")]
    return []


def _check_parts(manifest: DatasetManifest, rows: list[tuple[Digest, str, Row]]) -> list[Problem]:
    """Roots of the splits. They cannot be formed again once a row was erased: then its own problem stands for them."""
    if len(rows) != manifest.counts.rows_out:
        return []
    return [
        Problem("tampered", f"the rows of the part {part} do not give its root in the manifest")
        for part, root in sorted(manifest.parts.items())
        if merkle_root(name for name, _, row in rows if row.get("split") == part) != root
    ]


def _check_quarantine(parts: Parts, manifest: DatasetManifest) -> list[Problem]:
    if not manifest.counts.dropped:
        return []
    try:
        held = [(name, who, bool(row)) for name, who, _, row in parts.datasets.read_quarantine(manifest.action_key)]
    except Tampered as error:
        return [Problem("tampered", str(error))]
    if merkle_root(name for name, _, _ in held) != manifest.facts["quarantine"]:
        return [Problem("missing", "the quarantine does not hold the rows that were dropped")]
    erased = parts.keyring.erased(who for _, who, _ in held)
    return [Problem("tampered", f"row {name} {_HALF_ERASED}") for name, who, row in held if row and who in erased]
