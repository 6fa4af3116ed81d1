"""What people have to know of, from the audit log alone: each alert says what happened, with which evidence, what the
line did about it, and what a person should do; ``docs/runbooks`` has a page for each kind.

An alert is raised once while its episode lasts, however often the log tells of it again, and is over once. A log that
is broken raises none: nothing can be read from it, and whoever asks is told so.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

Kind = Literal[
    "drift",
    "quality",
    "safety",
    "service",
    "new-label",
    "retraining-decided",
    "retraining-held",
    "retraining-failed",
    "fix-needed",
    "canary-reverted",
    "promotion-failed",
    "projection-repaired",
    "rollback",
    "champion-unverified",
]
QUIET = timedelta(days=1)
"""What was put back is over when it did not have to be put back again for so long; no record says so."""


class Alert(Frozen):
    """``episode``: what of the product it is about. ``raised`` and ``ended`` are sequences of audit records; ``since``
    is the time of the first, ``last`` of the newest that told of it again, ``over`` when it ended."""

    product: str
    kind: Kind
    episode: str
    raised: int
    since: datetime
    last: datetime
    happened: str
    evidence: dict[str, Digest]
    done: str
    todo: str
    over: datetime | None = None
    ended: int | None = None

    @property
    def key(self) -> tuple[str, Kind, str]:
        return self.product, self.kind, self.episode

    @property
    def runbook(self) -> str:
        return f"docs/runbooks/{self.kind}.md"

    @property
    def text(self) -> str:
        evidence = "".join(f", {name} {digest}" for name, digest in self.evidence.items())
        return (
            f"{self.happened}\nEvidence: audit record {self.raised}{evidence}\n"
            f"Done: {self.done}\nTo do: {self.todo}\nRunbook: {self.runbook}"
        )

    @property
    def text_over(self) -> str:
        return f"Over since {self.over:%Y-%m-%d %H:%M} UTC (audit record {self.ended}): {self.happened}"


def alerts(records: Iterable[AuditRecord], now: datetime) -> list[Alert]:
    """All that were ever raised, the oldest first; those without ``over`` last on."""
    ended: list[Alert] = []
    lasting: dict[tuple[str, Kind, str], Alert] = {}
    for record in records:
        fresh = {alert.key: alert for alert in _raised(record)}
        for key, alert in list(lasting.items()):
            if _lapses(alert, record.time):
                ended.append(lasting.pop(key).model_copy(update={"over": alert.last + QUIET}))
            elif key in fresh:
                lasting[key] = alert.model_copy(update={"last": record.time})
            elif alert.product == record.product and _ends(record, alert):
                ended.append(lasting.pop(key).model_copy(update={"over": record.time, "ended": record.sequence}))
        for key, alert in fresh.items():
            lasting.setdefault(key, alert)
    found = [
        alert.model_copy(update={"over": alert.last + QUIET}) if _lapses(alert, now) else alert
        for alert in lasting.values()
    ]
    return sorted([*ended, *found], key=lambda alert: alert.raised)


def _lapses(alert: Alert, now: datetime) -> bool:
    return alert.kind == "projection-repaired" and now > alert.last + QUIET


def _ends(record: AuditRecord, alert: Alert) -> bool:
    """Whether this record, of the alert's product, ends it; one that raises the very same alert again is not asked."""
    match record.event:
        case "drift.recorded":
            return alert.kind in _METERS
        case "retrain.decided":
            again = record.body["decision"] == "retrain"
            return alert.kind in ("retraining-held", "fix-needed") or (again and alert.kind in _RETRAINING)
        case "release.registered":
            return alert.kind in _RETRAINING
        case "run.failed":
            return alert.kind == "retraining-decided" and record.body["job"] == "line"
        case "canary.recorded":
            return alert.kind == "canary-reverted"
        case "champion.verified" | "release.revoked":
            return alert.kind == "champion-unverified"
        case "promotion.recorded" | "rollback.recorded":
            return alert.kind in (*_METERS, *_UNTIL_ANOTHER_IS_LIVE)
        case "root-cause.filed":
            return (alert.kind, alert.episode) == ("rollback", record.body["environment"])
    return False


def _raised(record: AuditRecord) -> list[Alert]:
    """The alerts that this record raises, of which those whose episode lasts are no new ones."""
    if record.event == "drift.recorded":
        return _of_meters(record) if record.body["drifted"] else []
    alert = _one_raised(record)
    return [alert] if alert else []


def _of_meters(record: AuditRecord) -> list[Alert]:
    """One of each kind that the meters which drifted belong to; reports of earlier editions told no kinds."""
    release, told = record.body.get("release"), record.body.get("alerts")
    found = told if isinstance(told, dict) else {"drift": record.body["reason"]}
    return [
        _alert(
            record,
            kind,
            episode=str(release),
            happened=_METERS[kind].happened.format(product=record.product, release=release) + f": {found[kind]}.",
            evidence=("report", "release"),
            done="The line decides whether to retrain; nothing was changed.",
            todo=_METERS[kind].todo,
        )
        for kind in _METERS
        if kind in found
    ]


class _Told(NamedTuple):
    happened: str
    todo: str


_METERS: dict[Kind, _Told] = {
    "drift": _Told(
        "{product}: traffic is not what release {release} first met",
        "Look at what changed, and whether retraining is the answer to it.",
    ),
    "quality": _Told(
        "{product}: the answers of release {release} are worse than they were",
        "Read some of those that were corrected or are no JSON; roll back if they harm.",
    ),
    "safety": _Told(
        "{product}: release {release} refuses or offends more or less than it did",
        "Read such answers now; roll back if people are harmed.",
    ),
    "service": _Told(
        "{product}: release {release} answers slower, or fails more often, than it did",
        "Look at vLLM, the gateway and the load; a retraining mends none of it.",
    ),
    "new-label": _Told(
        "{product}: reviewers or answers name what release {release} never learned",
        "Decide whether it is a class of its own, and see that rows of it are collected.",
    ),
}
"""By kind, of what the meters find."""
_FAILED: dict[Kind, _Told] = {
    "retraining-failed": _Told(
        "the retraining that was decided", "Read the run, mend what it names, and start the line."
    ),
    "promotion-failed": _Told(
        "the promotion that was approved", "Read the run, mend what it names, and promote again."
    ),
}
_RETRAINING: tuple[Kind, ...] = ("retraining-decided", "retraining-failed")
_UNTIL_ANOTHER_IS_LIVE: tuple[Kind, ...] = (
    "retraining-held",
    "retraining-failed",
    "fix-needed",
    "canary-reverted",
    "promotion-failed",
    "champion-unverified",
)


def _one_raised(record: AuditRecord) -> Alert | None:
    body = record.body
    release, reason = body.get("release"), body.get("reason")
    where = f"{record.product} ({body.get('environment')})"
    match record.event:
        case "retrain.decided" if body["decision"] == "retrain":
            return _alert(
                record,
                "retraining-decided",
                episode=str(body.get("episode")),
                happened=f"{record.product}: retraining was decided: {_reasons(record)}.",
                evidence=("record", "drift"),
                done="A run of the line starts within a minute; its candidate waits for approval like any other.",
                todo="See that the run ends, and review its candidate.",
            )
        case "retrain.decided" if body["decision"] == "hold":
            return _alert(
                record,
                "retraining-held",
                episode=f"{body.get('held_by')} {body.get('episode')}",
                happened=f"{record.product}: retraining is due and held by {body.get('held_by')}: {_reasons(record)}.",
                evidence=("record", "drift"),
                done="Nothing is trained; it is decided again when the schedule looks after the hold is over.",
                todo="Wait, end the hold, or start the line yourself.",
            )
        case "retrain.decided" if body["decision"] == "fix":
            return _alert(
                record,
                "fix-needed",
                episode=str(body.get("episode")),
                happened=f"{record.product}: something broke that training does not mend: {_reasons(record)}.",
                evidence=("record", "drift"),
                done="Nothing is trained; answers go on as they are.",
                todo="Mend what the reasons name, or roll back if the release brought it.",
            )
        case "run.failed":
            kind: Kind = "retraining-failed" if body["job"] == "line" else "promotion-failed"
            at = f" at {body['step']} ({body['error']})" if body["step"] else ""
            return _alert(
                record,
                kind,
                episode=str(body["cause"]),
                happened=f"{record.product}: {_FAILED[kind].happened} failed{at}: run {body['run']} in Dagster.",
                evidence=(),
                done="The live release goes on answering; the run is not started again by itself.",
                todo=_FAILED[kind].todo,
            )
        case "canary.recorded" if body["outcome"] == "fail":
            return _alert(
                record,
                "canary-reverted",
                episode=str(release),
                happened=f"{record.product}: the canary of release {release} failed, the champion stays: {reason}.",
                evidence=("release", "canary"),
                done="Nobody is answered by the release any more, and no sensor tries it again.",
                todo="Find out why; then try it again or reject it.",
            )
        case "projection.repaired":
            found = body["found"] or "nothing"
            expected = body["expected"] or "the base model"
            return _alert(
                record,
                "projection-repaired",
                episode=f"{body['environment']} {body['projection']}",
                happened=f"{where}: a foreign hand changed {body['projection']} to {found}; live is {expected}.",
                evidence=("expected",),
                done="It was put back to what the audit log says.",
                todo="Find out who wrote there, and take away the right to.",
            )
        case "rollback.recorded":
            back = release or "the base model"
            return _alert(
                record,
                "rollback",
                episode=str(body["environment"]),
                happened=f"{where}: rolled back to {back} from {body.get('from')}: {reason}.",
                evidence=("from", "release"),
                done="It answers from the next request on; nothing is approved until the cause is filed.",
                todo="Tell those who were answered wrongly, find the cause, and file it.",
            )
        case "champion.unverified":
            return _alert(
                record,
                "champion-unverified",
                episode=f"{body['environment']} {release}",
                happened=f"{where}: the live release {release} cannot be verified: {reason}.",
                evidence=("release",),
                done="It is not loaded anew; the base answers in its place where the product lets it.",
                todo="Bring its files back, or roll back.",
            )
    return None


def _alert(
    record: AuditRecord, kind: Kind, episode: str, happened: str, evidence: tuple[str, ...], done: str, todo: str
) -> Alert:
    """``evidence``: the fields of the record that hold its digests."""
    return Alert(
        product=record.product,
        kind=kind,
        episode=episode,
        raised=record.sequence,
        since=record.time,
        last=record.time,
        happened=happened,
        evidence={_NAMES.get(name, name): str(digest) for name in evidence if (digest := record.body.get(name))},
        done=done,
        todo=todo,
    )


_NAMES = {"record": "decision", "report": "drift report", "drift": "drift report", "from": "left release"}


def _reasons(record: AuditRecord) -> str:
    found = record.body["reasons"]
    return "; ".join(map(str, found)) if isinstance(found, list) else str(found)
