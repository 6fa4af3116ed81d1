"""The life of a release, by the audit log alone: development, staging, production, deprecated, retired, archived.

Pure: a fold over the records. A record that is no legal move moves nothing, and `Course.wrong` names it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

from data_contracts.digests import Digest

if TYPE_CHECKING:
    from data_contracts.chain import AuditRecord

State = Literal["development", "staging", "production", "deprecated", "retired", "archived"]
Place = tuple[str, str]
"""(product, environment)"""
Move = Literal["promotion.recorded", "release.deprecated", "release.retired", "release.archived"]

MOVES: Mapping[State, Mapping[Move, State]] = {
    "development": {"release.archived": "archived"},
    "staging": {"promotion.recorded": "production"},
    "production": {"release.deprecated": "deprecated"},
    "deprecated": {"release.deprecated": "deprecated", "release.retired": "retired"},
    "retired": {"release.archived": "archived"},
    "archived": {},
}
"""What somebody may do to a release -> where that leads. An approval leads from development to staging; a rejection,
and a promotion or rollback of its product, which spends approvals, lead back. A rollback leads what it leaves from
production to development, and no approval leads anywhere until its root cause is filed; a revocation leads to retired
from anywhere but archived."""

NEXT: Mapping[State, str] = {
    "development": "sign it into staging (assay approve), or archive it (assay archive)",
    "staging": "promote it (assay promote), or reject it back into development (assay reject)",
    "production": "deprecate it (assay deprecate), or roll back (assay rollback)",
    "deprecated": "retire it (assay retire), or move its sunset to a later day (assay deprecate)",
    "retired": "archive it (assay archive)",
    "archived": "do no more with it: an archived release stays so",
}
"""What is legal from each state, in words."""


class Standing(NamedTuple):
    """Where a release stands since the audit record ``since``. From ``deprecated`` on, answers carry the notice, until
    ``sunset``, at which they end; ``successor`` is the release to go to."""

    product: str
    environment: str
    state: State
    since: int
    reason: str = ""
    deprecated: datetime | None = None
    sunset: datetime | None = None
    successor: Digest | None = None
    revoked: bool = False
    shredded: bool = False
    """The key of its tenant was destroyed, and it was not restored since."""


class Course(NamedTuple):
    """``stacks``: what is live in a place (last) and what each rollback would go back to; the base, ``None``, is always
    first. ``wrong``: sequence of a record that was no legal move -> why not. ``locked``: a place where nothing is
    approved -> sequence of the rollback whose root cause is not filed yet. ``shredded``: tenants whose key was
    destroyed."""

    standings: Mapping[Digest, Standing]
    stacks: Mapping[Place, Sequence[Digest | None]]
    wrong: Mapping[int, str]
    locked: Mapping[Place, int] = {}
    shredded: Collection[str] = ()

    def live(self, release: Digest) -> bool:
        return any(stack[-1] == release for stack in self.stacks.values())

    def ended(self, now: datetime) -> set[Digest]:
        """Releases whose sunset has come."""
        return {release for release, each in self.standings.items() if each.sunset and each.sunset <= now}

    def refusal(self, move: Move, release: Digest, sunset: datetime | None = None) -> str:
        """Why this move is not legal now, and what would be; empty when it is."""
        standing = self.standings.get(release)
        if standing is None:
            return f"{release} is no registered release: `assay releases` lists them"
        if move not in MOVES[standing.state]:
            return (
                f"{release} is in {standing.state}: {_DOING[move]} is not a legal move; you can {NEXT[standing.state]}"
            )
        if move in ("release.retired", "release.archived") and self.live(release):
            return f"{release} is live: promote its successor or roll back first"
        if standing.sunset and sunset and sunset < standing.sunset:
            return f"{release} was promised until {standing.sunset.isoformat()}: its sunset can move to later days only"
        return ""


_DOING: Mapping[Move, str] = {
    "promotion.recorded": "to promote it",
    "release.deprecated": "to deprecate it",
    "release.retired": "to retire it",
    "release.archived": "to archive it",
}


def follow(records: Iterable["AuditRecord"]) -> Course:
    """Where every registered release stands after these records, and what is live."""
    fold = _Fold()
    for record in records:
        fold.take(record)
    return Course(fold.standings, dict(fold.stacks), fold.wrong, fold.locked, fold.shredded)


@dataclass
class _Fold:
    standings: dict[Digest, Standing] = field(default_factory=dict)
    stacks: defaultdict[Place, list[Digest | None]] = field(default_factory=lambda: defaultdict(lambda: [None]))
    wrong: dict[int, str] = field(default_factory=dict)
    tried: set[Digest] = field(default_factory=set)
    """Releases whose newest canary since the product's last move passed."""
    locked: dict[Place, int] = field(default_factory=dict)
    gone: set[Digest] = field(default_factory=set)
    """Releases that never serve again: revoked, retired or archived ones."""
    shredded: set[str] = field(default_factory=set)

    def take(self, record: "AuditRecord") -> None:
        release = record.body.get("release")
        match record.event:
            case "release.registered":
                place = (record.product, str(record.body["environment"]))
                self.standings.setdefault(str(release), Standing(*place, "development", record.sequence))
            case "approval.accepted":
                if (record.product, str(record.body["environment"])) not in self.locked:
                    self._lead(record, "development", "staging")
            case "approval.rejected":
                self._lead(record, "staging", "development")
            case "canary.recorded":
                (self.tried.add if record.body["outcome"] == "pass" else self.tried.discard)(str(release))
            case "promotion.recorded" | "release.deprecated" | "release.retired" | "release.archived":
                self._move(record, record.event)
            case "rollback.recorded":
                self._roll_back(record)
            case "root-cause.filed":
                self.locked.pop((record.product, str(record.body["environment"])), None)
            case "release.revoked":
                self._lead(record, None, "retired")
                self._take_out(str(release))
            case "tenant.shredded":
                self.shredded.add(str(record.body["tenant"]))
                self._shred(record, True)
            case "tenant.restored":
                self.shredded.discard(str(record.body["tenant"]))
                self._shred(record, False)

    def _move(self, record: "AuditRecord", move: Move) -> None:
        release = str(record.body["release"])
        sunset = _time(record.body.get("sunset"))
        why = self._refusal(move, release, sunset)
        if why:
            self.wrong[record.sequence] = why
        else:
            self._set(record, release, MOVES[self.standings[release].state][move])
        if move == "promotion.recorded":
            self._promote(record, release)
        elif not why and move == "release.deprecated":
            known = self.standings[release]
            successor = record.body.get("successor")
            self.standings[release] = known._replace(
                deprecated=known.deprecated or record.time,
                sunset=sunset,
                successor=None if successor is None else str(successor),
            )
        elif not why:
            self._take_out(release)

    def _refusal(self, move: Move, release: Digest, sunset: datetime | None) -> str:
        why = Course(self.standings, self.stacks, self.wrong).refusal(move, release, sunset)
        if not why and move == "promotion.recorded" and release not in self.tried:
            return f"{release} was promoted without a canary that passed"
        return why

    def _promote(self, record: "AuditRecord", release: Digest) -> None:
        """What is live is what the promotion records say, also where `wrong` says that it should not be; but nothing
        that is gone comes back."""
        place = (record.product, str(record.body["environment"]))
        if release not in self.gone:
            self.stacks[place].append(release)
        self._spend(record, place)

    def _roll_back(self, record: "AuditRecord") -> None:
        place = (record.product, str(record.body["environment"]))
        stack = self.stacks[place]
        while len(stack) > 1 and stack[-1] != record.body["release"]:
            left = stack.pop()
            if left in self.standings and self.standings[left].state == "production":
                self._set(record, left, "development")
        self.locked[place] = record.sequence
        self._spend(record, place)

    def _spend(self, record: "AuditRecord", place: Place) -> None:
        """Approvals and canaries count until the product's next promotion or rollback: each serves once."""
        for release, standing in self.standings.items():
            if (standing.product, standing.environment) == place:
                self.tried.discard(release)
                if standing.state == "staging":
                    self._set(record, release, "development")

    def _shred(self, record: "AuditRecord", shredded: bool) -> None:
        """What is live stays so, by name: nobody else answers in its place."""
        releases = record.body["releases"]
        for release in releases if isinstance(releases, list) else ():
            self.standings[str(release)] = self.standings[str(release)]._replace(shredded=shredded)

    def _take_out(self, release: Digest) -> None:
        """For good, wherever it stands: what was live below it is live again."""
        self.gone.add(release)
        for stack in self.stacks.values():
            stack[:] = [each for each, _ in groupby(each for each in stack if each != release)]

    def _lead(self, record: "AuditRecord", before: State | None, after: State) -> None:
        """``before``: the only state from which it leads there; ``None`` for any but archived."""
        release = str(record.body["release"])
        standing = self.standings.get(release)
        if standing is not None and (standing.state == before or (before is None and standing.state != "archived")):
            self._set(record, release, after)

    def _set(self, record: "AuditRecord", release: Digest, state: State) -> None:
        known = self.standings[release]
        self.standings[release] = known._replace(
            state=state,
            since=record.sequence,
            reason=str(record.body.get("reason") or ""),
            revoked=known.revoked or record.event == "release.revoked",
        )


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
