"""What a reviewer has before them: of each product what is live, which releases wait for what, which were set aside.

Reads log, store and inbox, and changes nothing. The terminal (`assay pending`, `assay review`) and the review page show
the same.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from data_contracts.chain import AuditRecord, live_stack
from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Refused
from data_contracts.frozen import Frozen
from data_contracts.lifecycle import Course, Place, Standing, follow
from data_contracts.manifests import CheckpointManifest, ModelManifest, ReleaseManifest
from data_contracts.verdicts import Approval, Decision, GateVerdict
from pipelines.recipes.approvals import ApprovalRule
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.approval import set_aside, submitted
from pipelines.stages.release.ballot import decided, last_move
from pipelines.stages.release.evidence import check_product
from pipelines.stages.release.quorum import count, names
from pipelines.stages.release.registered import unsettled
from pipelines.stages.release.spotcheck import check_spot_checks
from pipelines.stages.release.terms import approval_rule

KEY = "~/.ssh/id_ed25519"
_MOVES = ("promotion.recorded", "rollback.recorded", "release.revoked", "release.retired", "release.archived")
"""What may change which release is live."""


class Word(Frozen):
    """What one reviewer said of a release. It counts, it waits for the approvals sensor, or it is void: ``reason``
    says why, or is that of a rejection. ``chained`` is when the log took it."""

    principal: str
    decision: Literal["approve", "reject"]
    standing: Literal["counts", "waits", "void"]
    expires: datetime
    reason: str = ""
    chained: datetime | None = None

    @property
    def approves(self) -> bool:
        return (self.decision, self.standing) == ("approve", "counts")

    @property
    def rejects(self) -> bool:
        return (self.decision, self.standing) == ("reject", "counts")


class Candidate(Frozen):
    """A release that may be approved. ``missing``: all that stands between it and its promotion, in words."""

    release: Digest
    registered: datetime
    trained: datetime | None
    """When its last checkpoint was recorded."""
    method: str
    verdict: Decision
    why: str
    displaces: Digest | None
    rule: ApprovalRule
    words: tuple[Word, ...]
    missing: tuple[str, ...]

    @property
    def approved_by(self) -> list[str]:
        return [each.principal for each in self.words if each.approves]

    @property
    def state(self) -> Literal["rejected", "waits", "approved"]:
        if any(each.rejects for each in self.words):
            return "rejected"
        return "waits" if self.missing else "approved"

    @property
    def commands(self) -> list[tuple[str, str]]:
        """What to do -> the command that does it; that of a rejection ends where its reason begins."""
        found = [("Read and sign", f"assay review {self.release} --key {KEY}")]
        if self.rule.spot_checks is not None:
            found += [
                ("Fetch the answers to rate", f"assay spotcheck pick {self.release} --out sheet.jsonl"),
                ("Sign the ratings", f"assay spotcheck import {self.release} sheet.jsonl --key {KEY}"),
            ]
        return [
            *found,
            ("Approve", f"assay approve {self.release} --key {KEY}"),
            ("Reject: add why, in quotes", f"assay reject {self.release} --key {KEY} --reason"),
        ]


class Aside(Frozen):
    """A release that nobody is asked about, and why."""

    release: Digest
    state: str
    why: str


class Review(Frozen):
    """One product. ``live`` since ``since``, until ``sunset`` where it is deprecated; ``None``: the base answers.
    ``locked``: why nothing is approved at the moment; empty where it is. ``faults``: releases that might wait, of which
    something cannot be read."""

    product: str
    environment: str
    live: Digest | None
    since: datetime | None
    sunset: datetime | None
    locked: str
    candidates: tuple[Candidate, ...]
    aside: tuple[Aside, ...]
    faults: tuple[Aside, ...]

    @property
    def unlock(self) -> str:
        return f"assay root-cause {shlex.quote(self.product)} --help"


def review(parts: Parts, products: Sequence[Product], now: datetime) -> list[Review]:
    """Every product that has a file or a release. Raises `ChainBroken` for a log that is not intact."""
    desk = _desk(parts, parts.log.records(), now)
    files = {(product.name, product.environment): product for product in products}
    places = {*files, *((each.product, each.environment) for each in desk.course.standings.values())}
    return [_of_product(desk, place, files.get(place)) for place in sorted(places)]


def review_one(parts: Parts, records: list[AuditRecord], product: Product, now: datetime) -> Review:
    """One product, by an intact log that was read already."""
    return _of_product(_desk(parts, records, now), (product.name, product.environment), product)


class _Desk(NamedTuple):
    """All that was read, once, for every product."""

    parts: Parts
    records: list[AuditRecord]
    course: Course
    unsettled: set[Digest]
    waiting: list[Approval]
    refused: list[tuple[Approval, str]]
    now: datetime


def _desk(parts: Parts, records: list[AuditRecord], now: datetime) -> _Desk:
    return _Desk(parts, records, follow(records), set(unsettled(records)), submitted(parts), set_aside(parts), now)


def _of_product(desk: _Desk, place: Place, product: Product | None) -> Review:
    live = desk.course.stacks.get(place, [None])[-1]
    standing = None if live is None else desk.course.standings.get(live)
    lock = desk.course.locked.get(place)
    locked = "" if lock is None else f"rolled back ({desk.records[lock].body['reason']}), and the root cause is due"
    candidates: list[Candidate] = []
    aside: list[Aside] = []
    faults: list[Aside] = []
    for release, each in desk.course.standings.items():
        if (each.product, each.environment) != place or release == live:
            continue
        if release not in desk.unsettled:
            aside.append(_settled(release, each))
            continue
        try:
            manifest = desk.parts.store.get_manifest(release, ReleaseManifest)
            if manifest.displaced_champion == live:
                candidates.append(_candidate(desk, manifest, product, locked))
            else:
                then = f"compared with {manifest.displaced_champion or 'the base'}, which is not what is live now"
                aside.append(Aside(release=release, state="superseded", why=then))
        except AssayError as error:
            faults.append(Aside(release=release, state="unchecked", why=str(error)))
    return Review(
        product=place[0],
        environment=place[1],
        live=live,
        since=_live_since(desk.records, place, live),
        sunset=None if standing is None else standing.sunset,
        locked=locked,
        candidates=tuple(reversed(candidates)),
        aside=tuple(reversed(aside)),
        faults=tuple(reversed(faults)),
    )


def _settled(release: Digest, standing: Standing) -> Aside:
    """One that was promoted before, or whose books are closed."""
    words = {"development": "rolled back", "staging": "rolled back", "production": "was live"}
    state = "revoked" if standing.revoked else words.get(standing.state, standing.state)
    return Aside(release=release, state=state, why=standing.reason)


def _live_since(records: Sequence[AuditRecord], place: Place, live: Digest | None) -> datetime | None:
    moves = [each for each in records if each.event in _MOVES and each.product == place[0]]
    changed = (each.time for each in reversed(moves) if live_stack(records[: each.sequence], *place)[-1] != live)
    return next(changed, None)


def _candidate(desk: _Desk, release: ReleaseManifest, product: Product | None, locked: str) -> Candidate:
    store, signatures, records = desk.parts.store, desk.parts.signatures, desk.records
    rule = approval_rule(store, release)
    verdict = store.get_manifest(release.verdict, GateVerdict)
    checkpoint = store.get_manifest(store.get_manifest(release.model, ModelManifest).checkpoint, CheckpointManifest)
    counted, void = count(store, signatures, release, records, rule)
    words = _words(desk, release, [record.sequence for record in counted], void)
    missing = [
        *([locked] if locked else []),
        *_objections(lambda: _check_files(release, product)),
        *(f"{each.principal} rejected it: {each.reason}" for each in words if each.rejects),
        *_objections(lambda: check_spot_checks(store, signatures, release, records)),
        *rule.missing(names(counted)),
        *_failed_canary(records, release),
    ]
    trained = (each for each in reversed(records) if each.event == "checkpoint.recorded")
    return Candidate(
        release=release.digest,
        registered=next(each.time for each in records if _registers(each, release.digest)),
        trained=next((each.time for each in trained if each.body["checkpoint"] == checkpoint.digest), None),
        method=f"{checkpoint.stage}, {checkpoint.method}",
        verdict=verdict.decision,
        why=verdict.reason,
        displaces=release.displaced_champion,
        rule=rule,
        words=tuple(words),
        missing=tuple(missing),
    )


def _words(desk: _Desk, release: ReleaseManifest, counted: Sequence[int], void: Mapping[int, str]) -> list[Word]:
    """Those in the log, those in the inbox, and of whoever said nothing else what was refused last."""
    found: list[Word] = []
    for record in decided(desk.records, release):
        one = desk.parts.store.get_manifest(str(record.body["approval"]), Approval)
        if record.event == "approval.rejected" or record.sequence in counted:
            found.append(_word(one, "counts", one.reason, record.time))
        else:
            found.append(_word(one, "void", void.get(record.sequence, "its key has approved by another name")))
    for one in desk.waiting:
        if one.release == release.digest:
            ended = one.statement.expires <= desk.now
            found.append(_word(one, "void", "expired: sign again") if ended else _word(one, "waits", one.reason))
    said = {each.principal for each in found}
    newest = {
        one.principal: _word(one, "void", reason)
        for one, reason in sorted(desk.refused, key=lambda each: each[0].statement.expires)
        if one.release == release.digest and one.principal not in said
    }
    return [*found, *newest.values()]


def _word(
    one: Approval, standing: Literal["counts", "waits", "void"], reason: str = "", chained: datetime | None = None
) -> Word:
    return Word(
        principal=one.principal,
        decision=one.statement.decision,
        standing=standing,
        expires=one.statement.expires,
        reason=reason,
        chained=chained,
    )


def _objections(check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except Refused as refusal:
        yield str(refusal)


def _check_files(release: ReleaseManifest, product: Product | None) -> None:
    if product is None:
        raise Refused(f"there is no file of product {release.product} in environment {release.environment}")
    check_product(release, product)


def _failed_canary(records: Sequence[AuditRecord], release: ReleaseManifest) -> Iterator[str]:
    moved = last_move(records, release.product, release.environment)
    tried = [each for each in records[moved + 1 :] if each.event == "canary.recorded"]
    tried = [each for each in tried if each.body["release"] == release.digest]
    if tried and tried[-1].body["outcome"] == "fail":
        yield f"its canary failed: {tried[-1].body['reason']}; to try again: assay promote {release.digest}"


def _registers(record: AuditRecord, release: Digest) -> bool:
    return record.event == "release.registered" and record.body["release"] == release
