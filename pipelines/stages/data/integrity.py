"""Whether the rows of a data set are what its manifest names: content, names, roots, ledger, quarantine."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

from data_contracts.digests import Digest, merkle_root, row_name
from data_contracts.errors import Missing, Tampered
from data_contracts.ledger import ledger_digest
from data_contracts.manifests import DatasetManifest
from pipelines.stages.protocols import Parts

_HALF_ERASED = "was erased and its content is still there: finish it with `assay erase --resume`"
_SPLIT = re.compile(r'"split":"([a-z]+)"\}\Z')


class Problem(NamedTuple):
    """``erased`` is what erasure leaves (names without key and content); everything else is a broken link."""

    kind: Literal["erased", "missing", "tampered"]
    text: str


def check_dataset(parts: Parts, manifest: DatasetManifest) -> list[Problem]:
    """Every problem of a data set; empty when each name is matched by exactly one row under its subject's key, and the
    rows lie in their order under their terms."""
    try:
        names = parts.datasets.names(manifest.root)
        problems = _check_rows(parts, manifest, names)
    except Missing as error:
        return [Problem("missing", str(error))]
    except Tampered as error:
        return [Problem("tampered", str(error))]
    if not problems and parts.datasets.content(manifest.root) != manifest.facts["content"]:
        problems.append(Problem("tampered", "its rows lie in another order, or under other terms, than were written"))
    if merkle_root(name for name, _ in names) != manifest.root:
        problems.append(Problem("tampered", "the list of row names does not give the root in the manifest"))
    if not manifest.counts.balanced() or manifest.counts.rows_out != len(names):
        problems.append(Problem("tampered", "the counts in the manifest do not add up to the rows it names"))
    return problems + _check_ledger(parts, manifest, {name for name, _ in names}) + _check_quarantine(parts, manifest)


def _check_rows(parts: Parts, manifest: DatasetManifest, names: Sequence[tuple[Digest, str]]) -> list[Problem]:
    """Each name against the rows, each row against its name, and the splits."""
    subjects = {subject for _, subject in names}
    keys = parts.keyring.known(subjects)
    erased = parts.keyring.erased(subjects - keys.keys())
    listed, present = Counter(names), Counter[tuple[Digest, str]]()
    splits: defaultdict[str, list[Digest]] = defaultdict(list)
    problems: list[Problem] = []
    for item in parts.datasets.read(manifest.root):
        present[item.name, item.subject] += 1
        if manifest.parts and (split := _SPLIT.search(item.text)):
            splits[split[1]].append(item.name)
        if present[item.name, item.subject] > listed[item.name, item.subject]:
            problems.append(Problem("tampered", f"row {item.name} was added: the data set does not name it"))
        elif item.subject in erased:
            problems.append(Problem("tampered", f"row {item.name} {_HALF_ERASED}"))
        elif item.subject in keys and row_name(keys[item.subject], item.text) != item.name:
            problems.append(Problem("tampered", f"row {item.name} was changed: its content does not match its name"))
    gone: list[Problem] = []
    for (name, subject), times in listed.items():
        if subject in erased:
            gone.append(Problem("erased", f"row {name} was erased"))
        elif subject not in keys:
            gone.append(Problem("missing", f"row {name} cannot be checked: its subject's key is gone, not erased"))
        elif present[name, subject] < times:
            gone.append(Problem("missing", f"row {name} is named and its content is not there"))
    if present.total() == manifest.counts.rows_out:
        # The parts cannot be formed again once a row was erased: then its own problem stands for them.
        problems += [
            Problem("tampered", f"the rows of the part {part} do not give its root in the manifest")
            for part, root in sorted(manifest.parts.items())
            if merkle_root(splits[part]) != root
        ]
    return gone + problems


def erased_rows(parts: Parts, manifest: DatasetManifest) -> list[Digest]:
    """The rows of a data set whose subjects were erased since it was made."""
    names = parts.datasets.names(manifest.root)
    erased = parts.keyring.erased(subject for _, subject in names)
    return [name for name, subject in names if subject in erased]


def _check_ledger(parts: Parts, manifest: DatasetManifest, names: set[Digest]) -> list[Problem]:
    entries = parts.ledger.entries(names)
    if len(entries) < len(names):
        return [Problem("missing", f"row {name} has no ledger entry") for name in sorted(names - entries.keys())]
    lines = sorted((entry.row, entry.subject, entry.origin.text) for entry in entries.values())
    if ledger_digest(lines) != manifest.facts["ledger"]:
        return [Problem("tampered", "a ledger entry of its rows is not what it was when the data set was made")]
    return []


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
