"""The first three steps: read the sources, hold each record to its contract, enter it in the ledger, ask the policy."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts.contract import DataContract, load_contract
from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.errors import BadInput
from data_contracts.ledger import LedgerEntry, Origin
from data_contracts.manifests import DatasetManifest, SourceRef
from data_contracts.policy import Decision, judge, load_policy
from data_contracts.ratings import Label
from data_contracts.rowcheck import Repeats, check_row
from pipelines.recipes.product import Product, Source
from pipelines.stages.data.adjudicate import Ballot, ratings_of
from pipelines.stages.data.batches import batched
from pipelines.stages.data.convert import convert
from pipelines.stages.data.feedback import SCHEME, write_rows
from pipelines.stages.data.item import Dropped, Item, Row
from pipelines.stages.data.origins import Origins
from pipelines.stages.data.rows import Outcome, Outlet, derive, load, named, step
from pipelines.stages.data.sources import Record, fetch, read
from pipelines.stages.data.unfit import without_unfit
from pipelines.stages.protocols import Parts

_COPIES = "fetched"


def raw(parts: Parts, product: Product) -> tuple[DatasetManifest, bool]:
    """Every readable record of every source, as it was found, with its source and contract."""
    with _copies(parts, product) as folder_of_copies:
        fetched: list[tuple[Source, DataContract, SourceRef, Path]] = []
        for index, source in enumerate(product.sources):
            folder = folder_of_copies / str(index)
            folder.mkdir()
            of_feedback = source.url.startswith(SCHEME)
            path = write_rows(parts, source.url, source.kind, folder) if of_feedback else fetch(source.url, folder)
            contract = load_contract(product.file("contract", source.contract))
            parts.store.put_manifest(contract)
            fetched.append((source, contract, _ref(source, contract, path), path))

        def work(out: Outlet) -> Outcome:
            for source, contract, ref, path in fetched:
                readable, first = False, ""
                for records in batched(read(path, source.url)):
                    good, bad = _records(parts, source, contract, ref, records)
                    for item in _entered(parts, good):
                        out.keep(item)
                    for drop in bad:
                        out.drop(drop)
                    readable = readable or bool(good) or any(drop.code != "unreadable" for drop in bad)
                    first = first or (f": {bad[0].reason}" if bad else "")
                if not readable and (first or not source.url.startswith(SCHEME)):
                    raise BadInput(f"source {source.url} has no readable row{first}")
            return Outcome(sources=tuple(ref for _, _, ref, _ in fetched))

        config = [ref.payload() | {"kind": source.kind} for source, _, ref, _ in fetched]
        modules = [f"pipelines.stages.data.{name}" for name in ("ingest", "feedback", "origins", "sources")]
        return step(parts, product, "raw", modules, config, [], work)


def contracted(parts: Parts, product: Product, raw: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """The records that keep their contract and are a conversation or a preference pair."""

    def work(out: Outlet) -> Outcome:
        contracts = _contracts(product)
        repeats = {url: Repeats(contract.table) for url, (_, contract) in contracts.items()}
        for item in load(parts, raw):
            source, contract = contracts[item.row["source"]]
            record = item.row["values"]
            reasons = check_row(contract.table, record) or repeats[source.url].check(record) or _unlike(source, record)
            if reasons:
                where = f"{source.url}, contract {contract.id}: "
                out.drop(Dropped(item, "contract", where + "; ".join(reasons)))
            else:
                out.keep(item)
        return Outcome()

    modules = [
        "pipelines.stages.data.ingest",
        "pipelines.stages.data.convert",
        "pipelines.stages.data.adjudicate",
        "data_contracts.contract",
        "data_contracts.rowcheck",
    ]
    return step(parts, product, "contracted", modules, _source_config(product), [raw], work)


def ledgered(parts: Parts, product: Product, contracted: DatasetManifest) -> tuple[DatasetManifest, bool]:
    """Training rows, each with a ledger entry that leads back to its record, as far as the data policy allows them."""
    policy = load_policy(product.file("data_policy", product.data_policy))
    policy.rule(product.purpose)

    def work(out: Outlet) -> Outcome:
        contracts = _contracts(product)
        ballot = Ballot({url: source for url, (source, _) in contracts.items()}, policy.preferences)
        decisions: Counter[tuple[Origin, Decision]] = Counter()
        judged: dict[str, Decision] = {}
        for records in batched(load(parts, contracted)):
            settled: list[tuple[Item, Label]] = []
            for record in records:
                ruled = ballot.settle(record)
                if isinstance(ruled, Dropped):
                    out.drop(ruled)
                else:
                    settled.append((record, ruled))
            rows = [_training_row(record, *contracts[record.row["source"]], better) for record, better in settled]
            items = derive(parts, [record for record, _ in settled], rows)
            allowed: list[Item] = []
            for item in items:
                origin = item.origin
                if origin.text not in judged:
                    judged[origin.text] = judge(policy, product.purpose, origin, contracts[origin.source][1].terms)
                decision = judged[origin.text]
                decisions[origin, decision] += 1
                if decision.verdict == "block":
                    out.drop(Dropped(item, decision.code, f"{origin.source}: {decision.reason}"))
                else:
                    allowed.append(item)
            for each in without_unfit(parts.pii, allowed):
                out.drop(each) if isinstance(each, Dropped) else out.keep(each)
        return Outcome({"decisions": _told(decisions)} | ballot.facts(parts.keyring.subject))

    modules = [
        "pipelines.stages.data.ingest",
        "pipelines.stages.data.convert",
        "pipelines.stages.data.adjudicate",
        "pipelines.stages.data.unfit",
        "evals.agreement",
        "evals.leaks",
        "evals.refusals",
        "data_contracts.policy",
    ]
    config = {
        "sources": _source_config(product),
        "purpose": product.purpose,
        "policy": policy.digest,
        "pii": parts.pii.identity,
    }
    return step(parts, product, "ledgered", modules, config, [contracted], work, policy=policy.digest)


def _told(decisions: Counter[tuple[Origin, Decision]]) -> list[dict[str, Any]]:
    """What the policy decided, by source and licence, with the reason and how many rows it met."""
    met: Counter[tuple[str, Digest, str, Decision]] = Counter()
    for (origin, decision), rows in decisions.items():
        met[origin.source, origin.contract, origin.licence, decision] += rows
    return [
        {"source": source, "contract": contract, "licence": licence, "rows": rows} | decision.payload()
        for (source, contract, licence, decision), rows in sorted(met.items(), key=str)
    ]


def pseudonym(parts: Parts, person: str) -> str:
    """The subject that a person is held as, by the value of a contract's ``subjectKey`` column."""
    return parts.keyring.subject(f"subject:{person}")


def forget_copies(parts: Parts) -> None:
    """Delete the copies of sources that killed runs left; waits for runs that are reading theirs."""
    for folder in sorted((parts.home / _COPIES).glob("*")):
        with parts.locks.hold(f"{_COPIES}-{folder.name}"):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _copies(parts: Parts, product: Product) -> Iterator[Path]:
    """A folder for copies of the sources while they are read. It lies in the home, where erasure finds what a killed
    run left in it."""
    folder = parts.home / _COPIES / product.name
    with parts.locks.hold(f"{_COPIES}-{product.name}"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _ref(source: Source, contract: DataContract, path: Path) -> SourceRef:
    return SourceRef(url=source.url, content=sha256_file(path), contract=contract.digest)


def _records(
    parts: Parts, source: Source, contract: DataContract, ref: SourceRef, records: list[Record]
) -> tuple[list[Item], list[Dropped]]:
    """Named records, and the lines that are left out with nothing kept of them: what cannot be read, and what is about
    a person who was erased. Such a line belongs to its source, as its person is not known, or may not be known."""
    good = [record for record in records if not record.fault]
    digest = contract.digest
    rows: list[Row] = [{"source": source.url, "contract": digest, "values": record.values} for record in good]
    subjects = [_subject(parts, source, contract, row) for row in rows]
    erased = parts.keyring.erased(subjects)
    origins = Origins(contract, ref)
    kept = named(
        parts,
        [(who, origins.of(row["values"]), row) for who, row in zip(subjects, rows, strict=True) if who not in erased],
    )
    left_out = [(record.line, "unreadable", record.fault) for record in records if record.fault]
    left_out += [
        (record.line, "erased", "is about a person who was erased; take it out of the source")
        for record, who in zip(good, subjects, strict=True)
        if who in erased
    ]
    unknown = parts.keyring.subject(f"unreadable:{source.url}")
    lines = named(parts, [(unknown, origins.of({}), {"source": source.url, "line": line}) for line, _, _ in left_out])
    dropped = [
        Dropped(item, code, f"{source.url}, line {line} {why}")
        for item, (line, code, why) in zip(lines, left_out, strict=True)
    ]
    return kept, dropped


def _entered(parts: Parts, items: list[Item]) -> list[Item]:
    """The records under the terms that the ledger has of them: of a record that was there before, the first."""
    entered = (LedgerEntry(row=each.name, subject=each.subject, origin=each.origin) for each in items)
    if parts.ledger.record(entered) == len({each.name for each in items}):
        return items
    entries = parts.ledger.entries(item.name for item in items)
    return [replace(item, origin=entries[item.name].origin) for item in items]


def _subject(parts: Parts, source: Source, contract: DataContract, row: Row) -> str:
    """Pseudonym of the person a record is about; a record that names nobody stands for itself."""
    field = contract.terms.subjectKey
    person = row["values"].get(field) if field else None
    if person and source.url.startswith(SCHEME):
        return str(person)  # it holds no names
    return pseudonym(parts, str(person)) if person else parts.keyring.subject(f"record:{sha256_json(row)}")


def _made(value: object) -> str | None:
    """When a record was made, in universal time, so that texts sort as times do."""
    if value is None or value == "":
        return None
    made = datetime.fromisoformat(str(value))
    return (made.astimezone(UTC) if made.tzinfo else made.replace(tzinfo=UTC)).isoformat()


def _unlike(source: Source, record: Row) -> list[str]:
    try:
        convert(source, record)
        ratings_of(source, record)
    except ValueError as error:
        return [str(error)]
    return []


def _training_row(record: Item, source: Source, contract: DataContract, better: Label) -> Row:
    """The converted record; ``record`` names what it was made from, ``group`` keeps it in one split with its like,
    ``label`` (where the contract has one) is its class in the mixture, ``date`` when it was made."""
    values, terms = record.row["values"], contract.terms
    group = values.get(terms.groupKey) if terms.groupKey else None
    names = {"record": record.name, "group": str(group) if group else None}
    label = {"label": str(values.get(terms.labelKey))} if terms.labelKey else {}
    made = {"date": _made(values.get(terms.dateField))} if terms.dateField else {}
    return convert(source, values, better) | names | label | made


def _contracts(product: Product) -> dict[str, tuple[Source, DataContract]]:
    return {
        source.url: (source, load_contract(product.file("contract", source.contract))) for source in product.sources
    }


def _source_config(product: Product) -> list[dict[str, Digest]]:
    return [source.payload() | {"contract": contract.digest} for source, contract in _contracts(product).values()]
