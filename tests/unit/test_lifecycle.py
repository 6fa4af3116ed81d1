"""The states of a release: whatever the audit log holds, and as the commands move them."""

import json
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.chain import GENESIS, AuditRecord
from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import BadInput, Refused
from data_contracts.lifecycle import Course, State, follow
from data_contracts.manifests import ReleaseManifest
from pipelines import lifecycle_cli
from pipelines.cli import app
from pipelines.stages.release import lifecycle
from pipelines.stages.release.approval import statement_for
from pipelines.stages.release.registered import awaiting_approval, latest_registered
from pipelines.stages.release.rollback import rollback
from pipelines.stages.release.verify import verify
from pipelines.stages.serve.reconcile import reconcile
from tests.support.line import SmallLine
from tests.support.pieces import NAME

START = datetime(2030, 1, 1, tzinfo=UTC)
RELEASES = [sha256_bytes(bytes([n])) for n in range(3)]
EVENTS = [
    *("release.registered", "approval.accepted", "approval.rejected", "canary.recorded", "promotion.recorded"),
    *("rollback.recorded", "root-cause.filed"),
    *("release.revoked", "release.deprecated", "release.retired", "release.archived"),
]
FORWARD: dict[State, set[State]] = {
    "development": {"staging", "retired", "archived"},
    "staging": {"development", "production", "retired"},
    "production": {"development", "deprecated", "retired"},
    "deprecated": {"retired"},
    "retired": {"archived"},
    "archived": set(),
}


def record(number: int, event: str, release: Digest | None, **more: Any) -> AuditRecord:
    body = {"release": release, "environment": "production", "outcome": "pass", "reason": "", **more}
    if event == "release.deprecated":
        body |= {"sunset": (START + timedelta(days=number % 5)).isoformat(), "successor": None}
    fields = {"sequence": number, "previous": GENESIS, "time": START, "actor": "test", "product": "p"}
    return AuditRecord.model_validate({**fields, "event": event, "body": body})


steps = st.tuples(st.sampled_from(EVENTS), st.sampled_from(RELEASES), st.sampled_from(["pass", "fail"]))
honest = ["release.registered", "approval.accepted", "canary.recorded", "promotion.recorded"]
logs = st.lists(
    st.one_of(
        steps.map(lambda step: [step]), st.sampled_from(RELEASES).map(lambda r: [(e, r, "pass") for e in honest])
    ),
    max_size=14,
).map(lambda parts: [record(n, e, r, outcome=o) for n, (e, r, o) in enumerate(chain.from_iterable(parts))])


@given(logs)
def test_any_records_lead_each_release_from_one_state_to_a_legal_next_one(records: list[AuditRecord]) -> None:
    before = follow([])
    for at, last in enumerate(records):
        after = follow(records[: at + 1])
        for release, standing in after.standings.items():
            assert standing.state in get_args(State)
            known = before.standings.get(release)
            moved = known is not None and known.state != standing.state
            assert not moved or standing.state in FORWARD[known.state]
            assert not (moved and at in after.wrong and last.event != "promotion.recorded")
        before = after


@given(logs)
def test_production_is_reached_by_an_approval_and_a_canary_since_the_last_move_and_by_nothing_else(
    records: list[AuditRecord],
) -> None:
    for at, last in enumerate(records):
        before, after = follow(records[:at]), follow(records[: at + 1])
        for release, standing in after.standings.items():
            if standing.state != "production" or before.standings[release].state == "production":
                continue
            moves = [n for n in range(at) if records[n].event in ("promotion.recorded", "rollback.recorded")]
            since = [r for r in records[moves[-1] + 1 if moves else 0 : at] if r.body["release"] == release]
            if moves and records[moves[-1]].event == "rollback.recorded":
                filed = [r.sequence for r in records[moves[-1] : at] if r.event == "root-cause.filed"]
                assert filed
                assert any(r.sequence > filed[0] for r in since if r.event == "approval.accepted")
            assert (last.event, last.body["release"]) == ("promotion.recorded", release)
            assert [r.event for r in since if "approval" in r.event][-1] == "approval.accepted"
            assert [r.body["outcome"] for r in since if r.event == "canary.recorded"][-1] == "pass"


@given(logs)
def test_what_was_retired_archived_or_revoked_never_serves_again(records: list[AuditRecord]) -> None:
    gone: set[Digest] = set()
    for at in range(len(records)):
        course = follow(records[: at + 1])
        gone |= {release for release, each in course.standings.items() if each.state in ("retired", "archived")}
        assert not gone.intersection(*[set().union(*course.stacks.values())])
        assert all(course.standings[release].state in ("retired", "archived") for release in gone)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallLine, ReleaseManifest, ReleaseManifest]:
    """Two releases of which the second is live."""
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    first = line.live()
    return line, first, line.live(1, line.model_of(first))


@pytest.fixture
def place(
    whole: tuple[SmallLine, ReleaseManifest, ReleaseManifest], tmp_path: Path
) -> tuple[SmallLine, ReleaseManifest, ReleaseManifest]:
    line, first, second = whole
    return line.copied(tmp_path / "copy"), first, second


def course(line: SmallLine) -> Course:
    return follow(line.parts.log.records())


def state(line: SmallLine, release: ReleaseManifest) -> State:
    return course(line).standings[release.digest].state


def later(days: float = 30) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_a_release_goes_all_the_way_and_every_state_is_mirrored_in_the_registry(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest],
) -> None:
    line, _, live = place
    seen = []

    def look(release: ReleaseManifest) -> None:
        reconcile(line.parts, [line.product])
        seen.append(line.registry.tags[NAME, release.digest])
        assert seen[-1] == state(line, release)

    release = line.release(2, line.model_of(live))
    look(release)
    line.approve(release)
    look(release)
    line.promote(release)
    look(release)
    lifecycle.deprecate(line.parts, release.digest, later(), "prices changed", "test")
    look(release)
    rollback(line.parts, line.product, "go back to the other", "test")
    lifecycle.retire(line.parts, release.digest, "the other is live", "test")
    look(release)
    lifecycle.archive(line.parts, release.digest, "out of support", "test")
    look(release)
    assert seen == list(get_args(State))
    line.registry.tags[NAME, release.digest] = "production"
    assert reconcile(line.parts, [line.product]) == [f"set the registry state of {release.digest} to archived"]
    links = verify(line.parts, release.digest, line.parts.signatures)
    assert {link.status for link in links} == {"ok"}
    assert next(link.detail for link in links if link.name == "lifecycle").startswith("archived since audit record")


def test_what_is_not_legal_is_refused_with_what_would_be(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest],
) -> None:
    line, first, second = place
    before = len(line.parts.log.records())
    with pytest.raises(Refused, match="is in production: to retire it is not a legal move; you can deprecate it"):
        lifecycle.retire(line.parts, first.digest, "why", "test")
    with pytest.raises(Refused, match="is in production: to archive it is not a legal move"):
        lifecycle.archive(line.parts, first.digest, "why", "test")
    with pytest.raises(Refused, match="is no registered release"):
        lifecycle.retire(line.parts, sha256_bytes(b"a folder"), "why", "test")
    with pytest.raises(BadInput, match="a reason is needed"):
        lifecycle.deprecate(line.parts, second.digest, later(), " ", "test")
    with pytest.raises(BadInput, match="has passed"):
        lifecycle.deprecate(line.parts, second.digest, later(-1), "why", "test")
    with pytest.raises(Refused, match=r"the successor .* is not another release"):
        lifecycle.deprecate(line.parts, second.digest, later(), "why", "test", successor=second.digest)
    assert len(line.parts.log.records()) == before

    lifecycle.deprecate(line.parts, second.digest, later(), "why", "test")
    with pytest.raises(Refused, match="is live: promote its successor or roll back first"):
        lifecycle.retire(line.parts, second.digest, "why", "test")
    with pytest.raises(Refused, match="its sunset can move to later days only"):
        lifecycle.deprecate(line.parts, second.digest, later(3), "why", "test")
    with pytest.raises(Refused, match=r"the successor .* is in deprecated itself"):
        lifecycle.deprecate(line.parts, first.digest, later(), "why", "test", successor=second.digest)
    lifecycle.deprecate(line.parts, second.digest, later(60), "still in use", "test", successor=first.digest)
    assert course(line).standings[second.digest].reason == "still in use"


def test_a_rollback_leads_past_what_was_retired_or_ended(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest],
) -> None:
    line, first, second = place
    lifecycle.deprecate(line.parts, first.digest, later(1), "why", "test")
    other = line.copied(line.folder.parent / "other")
    assert rollback(other.parts, other.product, "worse", "test", now=later(2)).body["release"] is None
    assert rollback(line.parts, line.product, "worse", "test").body["release"] == first.digest
    assert state(line, second) == "development", "its approvals are spent"
    assert state(line, first) == "deprecated"

    line.explain_rollback()
    third = line.live(2, line.model_of(first))
    lifecycle.retire(line.parts, first.digest, "why", "test")
    assert rollback(line.parts, line.product, "worse", "test").body["release"] is None
    assert state(line, third) == "development"


def test_a_release_on_its_way_out_is_not_approved_again(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest],
) -> None:
    line, first, _ = place
    lifecycle.deprecate(line.parts, first.digest, later(), "why", "test")
    with pytest.raises(Refused, match="is in deprecated, and no approval leads it back: you can retire it"):
        statement_for(line.parts, line.product, first.digest, "approve", later(0.01))


def test_a_candidate_that_nobody_wants_is_archived(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest],
) -> None:
    line, _, live = place
    release = line.release(2, line.model_of(live))
    assert latest_registered(line.parts, NAME) == release.digest
    assert awaiting_approval(line.parts) == [release.digest]
    lifecycle.archive(line.parts, release.digest, "a better one came", "test")
    assert awaiting_approval(line.parts) == []
    assert latest_registered(line.parts, NAME) == live.digest
    with pytest.raises(Refused, match="is in archived"):
        line.approve(release)


def test_a_move_that_was_chained_past_the_commands_breaks_the_link(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest],
) -> None:
    line, first, second = place
    body = {"release": second.digest, "environment": "production", "reason": "by hand"}
    line.parts.log.append("release.retired", NAME, body, actor="mallory")
    assert course(line).live(second.digest), "it moved nothing"
    (broken,) = [link for link in verify(line.parts, second.digest, line.parts.signatures) if link.status == "broken"]
    assert broken.name == "lifecycle"
    assert "is no legal move" in broken.detail
    assert not [link for link in verify(line.parts, first.digest, line.parts.signatures) if link.status == "broken"]


def test_the_commands_tell_where_releases_stand_and_move_them(
    place: tuple[SmallLine, ReleaseManifest, ReleaseManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, first, second = place
    monkeypatch.setattr(lifecycle_cli, "Line", lambda: line.parts)

    def assay(*words: str) -> Result:
        return CliRunner().invoke(app, words)

    def listed() -> list[tuple[str, str, bool]]:
        return [(r["release"], r["state"], r["live"]) for r in json.loads(assay("releases", "--json").output)]

    why = ("--reason", "prices changed")
    assert listed() == [(first.digest, "production", False), (second.digest, "production", True)]
    assert isinstance(assay("retire", first.digest[:19], *why).exception, Refused)
    done = assay("deprecate", first.digest[:19], "--sunset", "2099-01-31", *why, "--successor", second.digest[:19])
    assert "answers until 2099-01-31T00:00:00+00:00" in done.output
    shown = assay("releases", "--product", NAME).output
    until = f"deprecated, answers until 2099-01-31 00:00:00+00:00, then {second.digest}"
    assert shown.splitlines() == [
        f"{first.digest}  small/production  {until}",
        f"{second.digest}  small/production  production, live",
    ]
    assert assay("releases", "--product", "another", "--json").output.strip() == "[]"
    assert assay("retire", first.digest, *why).exit_code == assay("archive", first.digest, *why).exit_code == 0
    assert listed()[0] == (first.digest, "archived", False)
    for named in ("models/mine", "acme/billing-8b"):
        refused = assay("deprecate", second.digest, "--sunset", "2099-01-31", *why, "--successor", named)
        assert "is no registered release: name one by its id" in str(refused.exception)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T12:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_sunset_is_a_day_or_a_time_with_its_zone(text: str, meant: datetime) -> None:
    assert lifecycle.parse_sunset(text) == meant


@pytest.mark.parametrize("text", ["soon", "2030-13-01", "2030-01-31T12:00", ""])
def test_another_sunset_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="write 2030-01-31"):
        lifecycle.parse_sunset(text)
