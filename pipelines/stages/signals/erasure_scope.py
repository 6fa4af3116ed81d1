"""What holds a subject's rows or learned from them: by ledger, names, manifests and audit log, which erasure leaves."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest, is_digest
from data_contracts.manifests import CheckpointManifest, DatasetManifest, ModelManifest, ReleaseManifest
from pipelines.stages.data.protocols import Held
from pipelines.stages.protocols import Parts


class Family(NamedTuple):
    """A subject's rows and all that was made from them. ``subjects`` are the subject, and those that stand for nothing
    else than rows made from its rows; ``kept`` are made from its rows and belong to somebody else."""

    subjects: frozenset[str]
    rows: frozenset[Digest]
    kept: tuple[Digest, ...]
    sources: tuple[str, ...]


class Derived(NamedTuple):
    """What learned from the rows, by digest. ``samples`` are blobs of texts that such a model answered."""

    held: Held
    checkpoints: dict[Digest, CheckpointManifest]
    models: dict[Digest, ModelManifest]
    releases: dict[Digest, ReleaseManifest]
    samples: tuple[Digest, ...]

    def weights(self) -> frozenset[Digest]:
        """What such a model answers by: adapters and whole weights."""
        steps = {step.weights for step in self.checkpoints.values()}
        return frozenset(steps | {model.weights for model in self.models.values()})


def family(parts: Parts, subject: str) -> Family:
    found = set(parts.ledger.rows_of(subject))
    for row in list(found):
        found.update(parts.ledger.descendants(row))
    entries = parts.ledger.entries(found)
    others = {entry.subject for entry in entries.values()} - {subject}
    subjects = {subject} | {other for other in others if found.issuperset(parts.ledger.rows_of(other))}
    rows = {row for row, entry in entries.items() if entry.subject in subjects}
    return Family(
        subjects=frozenset(subjects),
        rows=frozenset(rows),
        kept=tuple(sorted(entries.keys() - rows)),
        sources=tuple(sorted({entries[row].origin.source for row in rows})),
    )


def derived(parts: Parts, subjects: Iterable[str]) -> Derived:
    """Everything that the action keys and the audit log lead to and that learned from a data set with such a row."""
    held = parts.datasets.held(subjects)
    records = parts.log.records()
    documents = dict(_documents(parts, _named(parts, records)))

    def of_kind(kind: str) -> dict[Digest, dict[str, Any]]:
        return {digest: each for digest, each in documents.items() if each.get("kind") == kind}

    steps = {digest: CheckpointManifest.model_validate(each) for digest, each in of_kind("checkpoint").items()}
    fed = {digest for digest, step in steps.items() if _holds(parts, step.datasets, held)}
    while more := {digest for digest, step in steps.items() if step.parent in fed and digest not in fed}:
        fed |= more
    models = {digest: ModelManifest.model_validate(each) for digest, each in of_kind("model").items()}
    models = {d: each for d, each in models.items() if each.checkpoint in fed or _holds(parts, each.datasets, held)}
    releases = {digest: ReleaseManifest.model_validate(each) for digest, each in of_kind("release").items()}
    releases = {digest: each for digest, each in releases.items() if each.model in models}
    learned = Derived(held, {digest: steps[digest] for digest in sorted(fed)}, models, releases, ())
    weights = learned.weights()
    evaluated = (each for each in of_kind("eval").values() if each["artifact"] in weights)
    samples = sorted({each["samples"] for each in evaluated if each["samples"]})
    return learned._replace(samples=tuple(samples))


def _named(parts: Parts, records: Sequence[AuditRecord]) -> Iterator[Digest]:
    yield from parts.store.remembered()
    for record in records:
        for name in ("checkpoint", "model", "release"):
            if is_digest(str(record.body.get(name))):
                yield str(record.body[name])


def _documents(parts: Parts, digests: Iterable[Digest]) -> Iterator[tuple[Digest, dict[str, Any]]]:
    """Each manifest once, with those that releases, models, verdicts and checkpoints name."""
    seen: set[Digest] = set()
    waiting = list(digests)
    while waiting:
        digest = waiting.pop()
        if digest in seen or not parts.store.has(digest):
            continue
        seen.add(digest)
        value = parts.store.get_json(digest)
        if isinstance(value, dict):
            yield digest, value
            waiting += [str(value[name]) for name in ("model", "checkpoint", "parent", "verdict") if value.get(name)]
            if value.get("kind") in ("verdict", "layer"):
                waiting += value["results"].values()


def _holds(parts: Parts, data_sets: Iterable[Digest], held: Held) -> bool:
    return any(parts.store.get_manifest(each, DatasetManifest).root in held.data_sets for each in data_sets)
