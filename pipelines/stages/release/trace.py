"""From an answer, a row or a person to everything it came from and went into. Names and counts only, never row text."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Literal

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest, is_digest
from data_contracts.errors import Missing
from data_contracts.frozen import Frozen
from data_contracts.ledger import LedgerEntry
from data_contracts.manifests import CheckpointManifest, DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.traces import Trace
from pipelines.stages.data.ingest import pseudonym
from pipelines.stages.protocols import Parts
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets


class DataStage(Frozen):
    data_set: Digest
    product: str
    stage: str
    rows: int
    root: Digest
    inputs: tuple[Digest, ...]
    sources: tuple[str, ...]


class Provenance(Frozen):
    """A release down to its sources. ``live`` says whether it answers now."""

    release: Digest
    model: Digest
    weights: Digest
    base: Digest
    verdict: Digest
    checkpoints: tuple[Digest, ...]
    data: tuple[DataStage, ...]
    live: bool


class AnswerTrace(Frozen):
    kind: Literal["answer"] = "answer"
    trace: Trace
    provenance: Provenance | None
    """``None``: the base answered."""


class Use(Frozen):
    """A release with checkpoints that were trained on the rows. ``routes``: where it is live, as product/environment.
    ``answers``: kept traces of what it answered."""

    release: Digest
    live: bool
    routes: tuple[str, ...]
    checkpoints: tuple[Digest, ...]
    answers: int


class Reach(Frozen):
    """The data sets that hold some rows, the checkpoints that were trained on those, the releases with those."""

    data: tuple[DataStage, ...]
    checkpoints: tuple[Digest, ...]
    releases: tuple[Use, ...]


class RowTrace(Frozen):
    """``parents`` and ``children`` are followed to the end; ``data`` holds the row or something made from it."""

    kind: Literal["row"] = "row"
    row: Digest
    ledger: LedgerEntry
    erased: bool
    parents: tuple[Digest, ...]
    children: tuple[Digest, ...]
    data: tuple[DataStage, ...]
    checkpoints: tuple[Digest, ...]
    releases: tuple[Use, ...]


class SubjectTrace(Frozen):
    """Every row about a person, and what they went into. ``subject`` is the pseudonym, ``records`` how many of the
    rows are as they were read; the others were made from those."""

    kind: Literal["subject"] = "subject"
    subject: str
    erased: bool
    sources: tuple[str, ...]
    records: int
    rows: tuple[Digest, ...]
    data: tuple[DataStage, ...]
    checkpoints: tuple[Digest, ...]
    releases: tuple[Use, ...]


def trace(parts: Parts, identifier: str) -> AnswerTrace | RowTrace:
    """``identifier`` is a response's trace id or a row's name. Raises `Missing` when it is neither."""
    if is_digest(identifier):
        return _of_row(parts, identifier)
    found = parts.traces.get(identifier)
    if found is None:
        raise Missing(f"no answer has the trace id {identifier}, and it is not a row's name (sha256:...)")
    return AnswerTrace(trace=found, provenance=None if found.release is None else _provenance(parts, found.release))


def trace_subject(parts: Parts, identifier: str) -> SubjectTrace:
    """``identifier`` is a value of the subject key of a data contract. Raises `Missing` when no row is about it."""
    subject = pseudonym(parts, identifier)
    rows = parts.ledger.rows_of(subject)
    if not rows:
        raise Missing("no row is about this subject: give the value as it stands in the column of the subject key")
    entries = parts.ledger.entries(rows).values()
    return SubjectTrace(
        subject=subject,
        erased=bool(parts.keyring.erased([subject])),
        sources=tuple(sorted({entry.origin.source for entry in entries})),
        records=sum(not entry.parents for entry in entries),
        rows=tuple(rows),
        **dict(reach(parts, rows)),
    )


def _of_row(parts: Parts, row: Digest) -> RowTrace:
    entry = parts.ledger.entry(row)
    if entry is None:
        raise Missing(f"the ledger has no row {row}")
    children = parts.ledger.descendants(row)
    return RowTrace(
        row=row,
        ledger=entry,
        erased=bool(parts.keyring.erased([entry.subject])),
        parents=tuple(parts.ledger.ancestors(row)),
        children=tuple(children),
        **dict(reach(parts, [row, *children])),
    )


def reach(parts: Parts, rows: Collection[Digest]) -> Reach:
    """Where these rows went; rows that were made from them count only when they are among them."""
    holding: dict[Digest, DatasetManifest] = {}
    for root, listed in groupby(parts.ledger.sets(), key=lambda each: each[0]):
        if parts.datasets.holds(root, rows):
            known = [digest for _, digest in listed if parts.store.has(digest)]
            holding |= {digest: parts.store.get_manifest(digest, DatasetManifest) for digest in known}
    records = parts.log.records()
    trained = {str(r.body["checkpoint"]) for r in records if r.event == "checkpoint.recorded"}
    steps = {digest: parts.store.get_manifest(digest, CheckpointManifest) for digest in sorted(trained)}
    fed = [digest for digest, step in steps.items() if not holding.keys().isdisjoint(step.datasets)]
    return Reach(
        data=tuple(_stage(digest, manifest) for digest, manifest in holding.items()),
        checkpoints=tuple(fed),
        releases=tuple(_uses(parts, records, set(fed))),
    )


def _uses(parts: Parts, records: Sequence[AuditRecord], fed: set[Digest]) -> Iterable[Use]:
    live: defaultdict[str, list[str]] = defaultdict(list)
    for (product, environment), release in sorted(live_releases(records).items()):
        live[release].append(f"{product}/{environment}")
    for digest in dict.fromkeys(str(r.body["release"]) for r in records if r.event == "release.registered"):
        manifest = parts.store.get_manifest(digest, ReleaseManifest)
        line = checkpoints(parts.store, parts.store.get_manifest(manifest.model, ModelManifest))
        through = tuple(step.digest for step in line if step.digest in fed)
        if through:
            answers = parts.traces.answered(manifest.product, digest)
            routes = tuple(live[digest])
            yield Use(release=digest, live=bool(routes), routes=routes, checkpoints=through, answers=answers)


def _provenance(parts: Parts, digest: Digest) -> Provenance:
    release = parts.store.get_manifest(digest, ReleaseManifest)
    model = parts.store.get_manifest(release.model, ModelManifest)
    line = checkpoints(parts.store, model)
    sets = datasets(parts.store, training_sets(model, line))
    return Provenance(
        release=digest,
        model=release.model,
        weights=release.weights,
        base=release.base,
        verdict=release.verdict,
        checkpoints=tuple(step.digest for step in line),
        data=tuple(_stage(each, manifest) for each, manifest in sets.items()),
        live=digest in live_releases(parts.log.records()).values(),
    )


def _stage(digest: Digest, manifest: DatasetManifest) -> DataStage:
    return DataStage(
        data_set=digest,
        product=manifest.product,
        stage=manifest.stage,
        rows=manifest.counts.rows_out,
        root=manifest.root,
        inputs=manifest.inputs,
        sources=tuple(source.url for source in manifest.sources),
    )
