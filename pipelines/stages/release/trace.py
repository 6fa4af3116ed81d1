"""From an answer, or from a row, to everything it came from and went into. Names and counts only, never row text."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest, is_digest
from data_contracts.errors import Missing
from data_contracts.frozen import Frozen
from data_contracts.ledger import LedgerEntry
from data_contracts.manifests import CheckpointManifest, DatasetManifest, ModelManifest, ReleaseManifest
from data_contracts.traces import Trace
from pipelines.stages.protocols import Parts
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets

_COUNTED_TRACES = 100_000


class DataStage(Frozen):
    data_set: Digest
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
    """A release with checkpoints that were trained on the row. ``answers``: kept traces of what it answered."""

    release: Digest
    live: bool
    checkpoints: tuple[Digest, ...]
    answers: int


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


def trace(parts: Parts, identifier: str) -> AnswerTrace | RowTrace:
    """``identifier`` is a response's trace id or a row's name. Raises `Missing` when it is neither."""
    if is_digest(identifier):
        return _of_row(parts, identifier)
    found = parts.traces.get(identifier)
    if found is None:
        raise Missing(f"no answer has the trace id {identifier}, and it is not a row's name (sha256:...)")
    return AnswerTrace(trace=found, provenance=None if found.release is None else _provenance(parts, found.release))


def _of_row(parts: Parts, row: Digest) -> RowTrace:
    entry = parts.ledger.entry(row)
    if entry is None:
        raise Missing(f"the ledger has no row {row}")
    records = parts.log.records()
    children = _closure(row, parts.ledger.children)
    family = {row, *children}
    trained = {str(r.body["checkpoint"]) for r in records if r.event == "checkpoint.recorded"}
    steps = {digest: parts.store.get_manifest(digest, CheckpointManifest) for digest in sorted(trained)}
    sets = datasets(parts.store, (each for step in steps.values() for each in step.datasets))
    holding = {
        digest: manifest
        for digest, manifest in sets.items()
        if family.intersection(name for name, _ in parts.datasets.names(manifest.root))
    }
    fed = [digest for digest, step in steps.items() if not holding.keys().isdisjoint(step.datasets)]
    return RowTrace(
        row=row,
        ledger=entry,
        erased=not parts.keyring.has(entry.subject),
        parents=tuple(_closure(row, lambda each: _parents(parts, each))),
        children=tuple(children),
        data=tuple(_stage(digest, manifest) for digest, manifest in holding.items()),
        checkpoints=tuple(fed),
        releases=tuple(_uses(parts, records, set(fed))),
    )


def _uses(parts: Parts, records: Sequence[AuditRecord], fed: set[Digest]) -> Iterable[Use]:
    live = set(live_releases(records).values())
    for digest in dict.fromkeys(str(r.body["release"]) for r in records if r.event == "release.registered"):
        release = parts.store.get_manifest(digest, ReleaseManifest)
        line = checkpoints(parts.store, parts.store.get_manifest(release.model, ModelManifest))
        through = tuple(step.digest for step in line if step.digest in fed)
        if through:
            answers = sum(each.release == digest for each in parts.traces.recent(release.product, _COUNTED_TRACES))
            yield Use(release=digest, live=digest in live, checkpoints=through, answers=answers)


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
        stage=manifest.stage,
        rows=manifest.counts.rows_out,
        root=manifest.root,
        inputs=manifest.inputs,
        sources=tuple(source.url for source in manifest.sources),
    )


def _parents(parts: Parts, row: Digest) -> Sequence[Digest]:
    entry = parts.ledger.entry(row)
    return entry.parents if entry else ()


def _closure(start: Digest, neighbours: Callable[[Digest], Iterable[Digest]]) -> list[Digest]:
    """Everything that can be reached from ``start``, nearest first, without it."""
    found: dict[Digest, None] = {}
    waiting = [start]
    while waiting:
        for each in neighbours(waiting.pop(0)):
            if each not in found and each != start:
                found[each] = None
                waiting.append(each)
    return list(found)
