"""The frame of every data step: read, work, write, balance the counts, manifest last. Rows stream through it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import Digest, canonical_json, raw, row_name, sha256_bytes
from data_contracts.errors import Missing, Refused, Tampered
from data_contracts.ledger import LedgerEntry, Origin
from data_contracts.manifests import Counts, DatasetManifest, SourceRef
from pipelines.recipes.product import Product
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.data.item import Dropped, Item, Row
from pipelines.stages.data.protocols import ROWS_LOCK, Sealed, Spool
from pipelines.stages.protocols import Parts


@dataclass(frozen=True)
class Outcome:
    """What a step says of its rows, once they are all through."""

    facts: dict[str, Any] = field(default_factory=dict)
    sources: tuple[SourceRef, ...] = ()
    parts: dict[str, Digest] = field(default_factory=dict)


class Outlet:
    """Where a step puts its rows, in any order: they are written in that of their content."""

    def __init__(self, kept: Spool, dropped: Spool) -> None:
        self._kept, self._dropped = kept, dropped
        self._subjects: set[str] = set()
        self.origins: dict[str, Origin] = {}
        self.rows: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.example = ""

    def keep(self, item: Item) -> None:
        self.origins[item.origin.text] = item.origin
        self.rows[item.origin.text] += 1
        self._subjects.add(item.subject)
        self._kept.add(item, item.content)

    def drop(self, dropped: Dropped) -> None:
        self.codes[dropped.code] += 1
        self.example = self.example or dropped.reason
        self._subjects.add(dropped.item.subject)
        self._dropped.add(dropped.item, dropped.item.name, f"{dropped.code}: {dropped.reason}")

    def write(self, parts: Parts, key: Digest) -> tuple[Sealed, Digest]:
        """Rows and quarantine (its root), unless a subject was erased while the step worked. Raises `Refused` then."""
        with parts.locks.hold(ROWS_LOCK):
            if gone := parts.keyring.erased(self._subjects):
                raise Refused(f"{len(gone)} subjects were erased meanwhile: run the step again, which leaves them out")
            sealed = parts.datasets.write(item for item, _ in self._kept)
            return sealed, parts.datasets.quarantine(key, self._dropped)


def named(parts: Parts, rows: Sequence[tuple[str, Origin, Row]]) -> list[Item]:
    """Name (subject, origin, row) triples under their subjects' keys, which are made where there are none."""
    texts = [(subject, origin, canonical_json(row).decode()) for subject, origin, row in rows]
    keys = parts.keyring.keys(subject for subject, _, _ in rows)
    return [Item(row_name(keys[subject], text), subject, origin, text) for subject, origin, text in texts]


def load(parts: Parts, manifest: DatasetManifest) -> Iterator[Item]:
    """The rows of a data set in the order of their content, which is the same in every installation. All are held to
    the manifest's seal before the first is handed out. Raises `Tampered` or `Missing` when they are not what was
    written, and `Refused` when one was erased."""
    erased = parts.keyring.erased(subject for _, subject in parts.datasets.names(manifest.root))
    if erased or parts.datasets.content(manifest.root) != manifest.facts["content"]:
        where = f"data set {manifest.digest} ({manifest.stage} of {manifest.product}): "
        for problem in check_dataset(parts, manifest):
            if problem.kind == "erased":
                raise Refused(f"{where}{problem.text}; make the data anew from its sources")
            raise (Missing if problem.kind == "missing" else Tampered)(where + problem.text)
    return parts.datasets.read(manifest.root)


def draw(salt: tuple[str, int], content: Digest) -> float:
    """A number in [0, 1) that a row's content and the salt fix, in every installation."""
    name, seed = salt
    first = raw(sha256_bytes(f'[["{name}",{seed}],"{content}"]'.encode()))[:7]
    return (int.from_bytes(first) >> 4) / 16**13


def derive(parts: Parts, old: Sequence[Item], new: Sequence[Row]) -> list[Item]:
    """Rows made from rows, one to one: each gets its name and a ledger entry with its parent and that one's terms. A
    row that is as it was stays the item that it was."""
    changed = [(item, row) for item, row in zip(old, new, strict=True) if row != item.row]
    items = named(parts, [(item.subject, item.origin, row) for item, row in changed])
    parts.ledger.record(
        LedgerEntry(row=item.name, subject=item.subject, origin=item.origin, parents=(parent.name,))
        for (parent, _), item in zip(changed, items, strict=True)
    )
    made = {parent.name: item for (parent, _), item in zip(changed, items, strict=True)}
    return [made.get(item.name, item) for item in old]


def step(
    parts: Parts,
    product: Product,
    stage: str,
    modules: Sequence[str],
    config: Any,
    inputs: Sequence[DatasetManifest],
    work: Callable[[Outlet], Outcome],
    policy: Digest | None = None,
) -> tuple[DatasetManifest, bool]:
    """Run ``work`` unless its result is remembered and still whole: rows, quarantine, ledger, then the manifest."""
    code = code_version(__name__, "pipelines.stages.data.item", *modules)
    key = action_key(f"data/{stage}", code, {"product": product.name, "step": config}, [each.digest for each in inputs])

    def make() -> DatasetManifest:
        with parts.datasets.spool() as kept, parts.datasets.spool() as dropped:
            out = Outlet(kept, dropped)
            outcome = work(out)
            rows = out.rows.total()
            if not rows:
                told = ", ".join(f"{count} {code}" for code, count in out.codes.most_common()) or "it got none"
                first = f"; for example: {out.example}" if out.example else ""
                raise Refused(f"{product.name}: no row is left after {stage} ({told}){first}")
            sealed, quarantine = out.write(parts, key)
        origins = [(out.origins[text], count) for text, count in out.rows.items()]
        synthetic = sum(count for origin, count in origins if origin.synthetic_depth)
        facts: dict[str, JsonValue] = {
            "licences": _counted((origin.licence, count) for origin, count in origins),
            "tiers": _counted((origin.tier, count) for origin, count in origins),
            "origins": _origins(origins),
            "quarantine": quarantine,
            "content": sealed.content,
            "ledger": sealed.ledger,
        }
        return DatasetManifest(
            product=product.name,
            stage=stage,
            root=sealed.root,
            counts=Counts(rows_in=rows + out.codes.total(), rows_out=rows, dropped=dict(sorted(out.codes.items()))),
            inputs=tuple(each.digest for each in inputs),
            sources=outcome.sources or (inputs[0].sources if inputs else ()),
            policy=policy or (inputs[0].policy if inputs else None),
            parts=outcome.parts,
            synthetic_share=round(synthetic / rows, 6),
            facts=facts | outcome.facts,
            action_key=key,
        )

    made, hit = remembered(parts.store, key, DatasetManifest, make, whole=lambda known: not check_dataset(parts, known))
    # Also after a hit: so that what a crash left out, or a ledger that was lost, is made up for.
    parts.ledger.record_set(made.root, made.digest)
    return made, hit


def _counted(counts: Iterable[tuple[str, int]]) -> JsonValue:
    total: Counter[str] = Counter()
    for word, count in counts:
        total[word] += count
    return dict(sorted(total.items()))


def _origins(counts: Iterable[tuple[Origin, int]]) -> JsonValue:
    """How many rows came from which source, under which contract and licence."""
    total: Counter[tuple[str, Digest, str]] = Counter()
    for origin, count in counts:
        total[origin.source, origin.contract, origin.licence] += count
    return [
        {"source": source, "contract": contract, "licence": licence, "rows": rows}
        for (source, contract, licence), rows in sorted(total.items())
    ]
