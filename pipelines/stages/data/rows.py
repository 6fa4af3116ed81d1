"""Named rows, and the frame of every data step: read, work, write, balance the counts, manifest last."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest, hex_of, merkle_root, row_name, sha256_json
from data_contracts.errors import Missing, Refused, Tampered
from data_contracts.ledger import LedgerEntry
from data_contracts.manifests import Counts, DatasetManifest, SourceRef
from pipelines.recipes.product import Product
from pipelines.stages.data.integrity import check_dataset, checked, ledger_root
from pipelines.stages.protocols import ROWS_LOCK, Parts, Row


@dataclass(frozen=True)
class Item:
    """A row under its name. ``subject`` is a pseudonym."""

    name: Digest
    subject: str
    row: Row


@dataclass(frozen=True)
class Dropped:
    """A row that a step rejects: a code for the counts, a reason (without values of the row) for people."""

    item: Item
    code: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    kept: list[Item]
    dropped: list[Dropped] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    sources: tuple[SourceRef, ...] = ()
    parts: dict[str, Digest] = field(default_factory=dict)


def named(parts: Parts, rows: Iterable[tuple[str, Row]]) -> list[Item]:
    """Name (subject, row) pairs under their subjects' keys, which are made where there are none."""
    pairs = list(rows)
    keys = parts.keyring.keys(subject for subject, _ in pairs)
    return [Item(row_name(keys[subject], row), subject, row) for subject, row in pairs]


def load(parts: Parts, manifest: DatasetManifest) -> list[Item]:
    """All rows of a data set in the order of their content, which is the same in every installation. Raises
    `Tampered` or `Missing` when a row is not what its name says, and `Refused` when one was erased."""
    rows, problems = checked(parts, manifest)
    for problem in problems:
        where = f"data set {manifest.digest} ({manifest.stage} of {manifest.product}): {problem.text}"
        if problem.kind == "erased":
            raise Refused(f"{where}; make the data anew from its sources")
        raise (Missing if problem.kind == "missing" else Tampered)(where)
    return sorted((Item(*each) for each in rows), key=lambda item: content(item.row))


def content(row: Row) -> Digest:
    """Digest of what a row says, apart from the installation's names: kind, and example or pair."""
    return sha256_json({key: value for key, value in row.items() if key != "record"})


def draw(salt: JsonValue, row: Row) -> float:
    """A number in [0, 1) that the row's content and the salt fix, in every installation."""
    return int(hex_of(sha256_json([salt, content(row)]))[:13], 16) / 16**13


def derive(parts: Parts, old: Sequence[Item], new: Sequence[Row]) -> list[Item]:
    """Rows made from rows, one to one: each gets its name and a ledger entry with its parent and that one's terms."""
    entries = parts.ledger.entries(item.name for item in old)
    items = named(parts, ((item.subject, row) for item, row in zip(old, new, strict=True)))
    parts.ledger.record(
        _child(entries[before.name], after)
        for before, after in zip(old, items, strict=True)
        if after.name != before.name
    )
    return items


def _child(parent: LedgerEntry, item: Item) -> LedgerEntry:
    return parent.model_copy(update={"row": item.name, "parents": (parent.row,)})


def step(
    parts: Parts,
    product: Product,
    stage: str,
    modules: Sequence[str],
    config: Any,
    inputs: Sequence[DatasetManifest],
    work: Callable[[], Outcome],
    policy: Digest | None = None,
) -> tuple[DatasetManifest, bool]:
    """Run ``work`` unless its result is remembered and still whole: rows, quarantine, ledger, then the manifest."""
    code = code_version(__name__, *modules)
    key = action_key(f"data/{stage}", code, {"product": product.name, "step": config}, [each.digest for each in inputs])

    def make() -> DatasetManifest:
        outcome = work()
        if not outcome.kept:
            reasons = Counter(drop.code for drop in outcome.dropped)
            told = ", ".join(f"{count} {code}" for code, count in reasons.most_common()) or "it got none"
            first = f"; for example: {outcome.dropped[0].reason}" if outcome.dropped else ""
            raise Refused(f"{product.name}: no row is left after {stage} ({told}){first}")
        root = _write(parts, key, outcome)
        counts = Counts(
            rows_in=len(outcome.kept) + len(outcome.dropped),
            rows_out=len(outcome.kept),
            dropped=dict(sorted(Counter(drop.code for drop in outcome.dropped).items())),
        )
        entries = parts.ledger.entries(item.name for item in outcome.kept)
        facts: dict[str, JsonValue] = {
            "licences": _counted(entry.licence for entry in entries.values()),
            "tiers": _counted(entry.tier for entry in entries.values()),
            "origins": _origins(entries.values()),
            "quarantine": merkle_root(drop.item.name for drop in outcome.dropped),
            "ledger": ledger_root(entries.values()),
        }
        return DatasetManifest(
            product=product.name,
            stage=stage,
            root=root,
            counts=counts,
            inputs=tuple(each.digest for each in inputs),
            sources=outcome.sources or (inputs[0].sources if inputs else ()),
            policy=policy or (inputs[0].policy if inputs else None),
            parts=outcome.parts,
            synthetic_share=round(
                sum(entries[i.name].synthetic_depth > 0 for i in outcome.kept) / len(outcome.kept), 6
            ),
            facts=facts | outcome.facts,
            action_key=key,
        )

    made, hit = remembered(parts.store, key, DatasetManifest, make, whole=lambda known: not check_dataset(parts, known))
    # Also after a hit: so that what a crash left out, or a ledger that was lost, is made up for.
    parts.ledger.record_set(made.root, made.digest)
    return made, hit


def _origins(entries: Iterable[LedgerEntry]) -> JsonValue:
    """How many rows came from which source, under which contract and licence."""
    counted = Counter((entry.source, entry.contract, entry.licence) for entry in entries)
    return [
        {"source": source, "contract": contract, "licence": licence, "rows": rows}
        for (source, contract, licence), rows in sorted(counted.items())
    ]


def _write(parts: Parts, key: Digest, outcome: Outcome) -> Digest:
    """Rows and quarantine, unless a subject was erased while the step worked. Raises `Refused` then."""
    items = [*outcome.kept, *(drop.item for drop in outcome.dropped)]
    with parts.locks.hold(ROWS_LOCK):
        if gone := parts.keyring.erased(item.subject for item in items):
            raise Refused(f"{len(gone)} subjects were erased meanwhile: run the step again, which leaves them out")
        root = parts.datasets.write((item.name, item.subject, item.row) for item in outcome.kept)
        parts.datasets.quarantine(
            key, ((d.item.name, d.item.subject, f"{d.code}: {d.reason}", d.item.row) for d in outcome.dropped)
        )
    return root


def _counted(words: Iterable[str]) -> JsonValue:
    return dict(sorted(Counter(words).items()))
