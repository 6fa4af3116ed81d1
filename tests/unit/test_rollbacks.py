"""After a rollback: who saw what was taken back, and what must be signed before anything is approved again."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.chain import ROOT_CAUSE_NAMESPACE
from data_contracts.errors import BadInput, Refused
from data_contracts.lifecycle import follow
from data_contracts.traces import Trace
from pipelines import lifecycle_cli, releases_cli
from pipelines.cli import app
from pipelines.stages.release import rootcause
from pipelines.stages.release.rollback import rollback
from resources.ssh_signatures import sign
from tests.support.line import SmallLine
from tests.support.pieces import NAME


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLine:
    made = SmallLine(tmp_path)
    for cli in (releases_cli, lifecycle_cli):
        monkeypatch.setattr(cli, "Line", lambda: made.parts)
    return made


def assay(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def answered(line: SmallLine, release: str | None, tenant: str, *statuses: int) -> None:
    for status in statuses:
        line.parts.traces.add(
            Trace(
                trace_id=f"{release}-{tenant}-{status}-{datetime.now(UTC).timestamp()}",
                time=datetime.now(UTC),
                tenant=tenant,
                product=NAME,
                route="champion",
                release=release,
                base=line.base.digest,
                adapter=None,
                template=line.base.digest,
                status=status,
                prompt_chars=3,
                prompt_tokens=1,
                completion_tokens=1,
                latency_ms=1,
                json_valid=True,
            )
        )
    line.parts.traces.flush()


def test_support_is_told_who_saw_it_and_what_to_say(line: SmallLine) -> None:
    answered(line, None, "acme", 200)
    bad = line.live()
    answered(line, bad.digest, "acme", 200, 200, 502)
    answered(line, bad.digest, "globex", 200)
    done = assay("rollback", NAME, "--reason", "wrong refunds")
    assert done.exit_code == 0, done.exception
    answered(line, None, "initech", 200)
    note = json.loads(assay("support-note", NAME, "--json").stdout)
    assert (note["release"], note["now"], note["reason"]) == (bad.digest, None, "wrong refunds")
    assert [(each["tenant"], each["answers"], each["failed"]) for each in note["saw"]] == [
        ("acme", 2, 1),
        ("globex", 1, 0),
    ]
    first, last = (datetime.fromisoformat(note["saw"][0][name]) for name in ("first", "last"))
    assert datetime.fromisoformat(note["since"]) <= first <= last <= datetime.fromisoformat(note["until"])
    (written,) = (line.parts.home / "reports").glob("*/rollback-*.md")
    assert str(written) in done.output.replace("\n", "")
    assert written.read_text() == assay("support-note", NAME).stdout
    assert "| acme | 2 | 1 |" in written.read_text()
    status = written.read_text().split("## Who saw it")[0]
    assert "sha256" not in status, "what is sent names nothing of ours"
    assert "wrong refunds" not in status


def test_nobody_is_told_of_what_never_was(line: SmallLine) -> None:
    done = assay("support-note", NAME)
    assert "never rolled back" in str(done.exception)


def test_nothing_is_approved_until_the_cause_is_signed(line: SmallLine) -> None:
    line.live()
    rollback(line.parts, line.product, "wrong refunds", "test")
    again = line.release(2)
    with pytest.raises(Refused, match=r"was rolled back \(audit record \d+: wrong refunds\), and approvals wait"):
        line.approve(again)
    # nor does one count that gets into the log by another way
    body = {"release": again.digest, "environment": "production", "nonce": "", "principal": "alice"}
    line.parts.log.append("approval.accepted", NAME, body, actor="an editor")
    assert follow(line.parts.log.records()).standings[again.digest].state == "development"
    words = ("--category", "data", "--text", "prices of last year", "--key", str(line.key("alice")))
    done = assay("root-cause", NAME, *words)
    assert done.exit_code == 0, done.exception
    assert "filed by alice" in done.output
    third = line.release(3)
    line.approve(third)
    line.promote(third)
    assert follow(line.parts.log.records()).live(third.digest)


def test_a_cause_is_signed_by_those_who_may_and_for_one_rollback(line: SmallLine) -> None:
    with pytest.raises(Refused, match="waits for no root cause"):
        line.explain_rollback()
    line.live()
    rollback(line.parts, line.product, "wrong refunds", "test")
    with pytest.raises(BadInput, match="say in a sentence"):
        rootcause.statement_for(line.parts, line.product, "data", " bug  ")
    statement = rootcause.statement_for(line.parts, line.product, "data", "prices of last year")
    by = {who: sign(line.key(who), ROOT_CAUSE_NAMESPACE, rootcause.message(statement)) for who in ("alice", "bob")}
    with pytest.raises(Refused, match="not in the trust root"):
        rootcause.file(line.parts, line.product, statement, by["bob"])
    other = statement.model_copy(update={"category": "outside"})
    with pytest.raises(Refused, match="does not fit"):
        rootcause.file(line.parts, line.product, other, by["alice"], "alice")
    record = rootcause.file(line.parts, line.product, statement, by["alice"])
    assert (record.actor, record.body["category"], record.body["text"]) == ("alice", "data", "prices of last year")
    release = line.release(3)
    line.approve(release)
    line.promote(release)
    rollback(line.parts, line.product, "worse still", "test")
    with pytest.raises(Refused, match="waits for no root cause"):
        rootcause.file(line.parts, line.product, statement, by["alice"])


def test_traces_count_from_a_time_on_and_in_their_order(line: SmallLine) -> None:
    answered(line, None, "acme", 200, 200)
    traces = line.parts.traces
    both = traces.since(NAME, datetime.now(UTC) - timedelta(hours=1))
    assert [each.time for each in both] == sorted(each.time for each in both)
    assert len(both) == 2
    assert traces.since(NAME, both[1].time) == [both[1]]
    assert traces.since("another", both[0].time) == []
