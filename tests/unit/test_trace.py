"""From an answer to its sources, and from a row to the answers it went into."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from data_contracts.errors import Missing
from data_contracts.ledger import Origin
from data_contracts.manifests import ReleaseManifest
from data_contracts.traces import Trace
from pipelines.cli import app
from pipelines.stages.release.trace import AnswerTrace, RowTrace, trace, trace_subject
from tests.support.line import SmallLine
from tests.support.pieces import NAME

OTHER = "sha256:" + "1" * 64


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> tuple[SmallLine, ReleaseManifest]:
    line = SmallLine(tmp_path_factory.mktemp("line"))
    release = line.live()
    for name, answered in (("one", release.digest), ("two", release.digest), ("base", None)):
        line.parts.traces.add(
            Trace(
                trace_id=name,
                time=datetime.now(UTC),
                tenant="demo",
                product=NAME,
                route="champion",
                release=answered,
                base=release.base,
                adapter=release.weights if answered else None,
                template=release.template,
                status=200,
                prompt_chars=3,
                prompt_tokens=1,
                completion_tokens=1,
                latency_ms=1,
                json_valid=True,
            )
        )
    assert line.parts.traces.flush()
    return line, release


def test_an_answer_leads_to_its_release_model_checkpoint_data_and_sources(place):
    line, release = place
    found = trace(line.parts, "one")
    assert isinstance(found, AnswerTrace)
    came_from = found.provenance
    assert came_from is not None
    assert (came_from.release, came_from.model, came_from.live) == (release.digest, release.model, True)
    assert came_from.checkpoints == (line.model_of(release).checkpoint,)
    assert [stage.data_set for stage in came_from.data] == [line.splits.digest, line.raw.digest]
    assert came_from.data[-1].sources == ("generated://small",)


def test_an_answer_of_the_base_has_no_release_behind_it(place):
    found = trace(place[0].parts, "base")
    assert isinstance(found, AnswerTrace)
    assert found.provenance is None


def test_a_raw_row_leads_to_what_was_made_of_it_and_to_the_answers(place):
    line, release = place
    row = line.parts.datasets.names(line.raw.root)[0][0]
    found = trace(line.parts, row)
    assert isinstance(found, RowTrace)
    assert (found.ledger.origin.licence, found.erased, found.parents) == ("CC0-1.0", False, ())
    (child,) = found.children
    assert {stage.data_set for stage in found.data} == {line.raw.digest, line.splits.digest}
    assert found.checkpoints == (line.model_of(release).checkpoint,)
    (use,) = found.releases
    assert (use.release, use.live, use.answers) == (release.digest, True, 2)
    assert use.routes == (f"{NAME}/production",)

    back = trace(line.parts, child)
    assert isinstance(back, RowTrace)
    assert back.parents == (row,)
    assert [stage.data_set for stage in back.data] == [line.splits.digest]
    assert back.releases == found.releases
    assert "row 1" not in str(found.payload())


def test_a_person_leads_to_their_rows_and_to_the_routes_that_learned_from_them(place):
    line, release = place
    found = trace_subject(line.parts, "person-1")
    assert (found.records, len(found.rows), found.erased) == (3, 6, False)
    assert found.sources == ("generated://small",)
    assert {stage.stage for stage in found.data} == {"raw", "splits"}
    assert found.checkpoints == (line.model_of(release).checkpoint,)
    assert [use.routes for use in found.releases] == [(f"{NAME}/production",)]
    assert "person-1" not in str(found.payload())
    with pytest.raises(Missing, match="no row is about this subject"):
        trace_subject(line.parts, "nobody")


def test_the_terminal_tells_what_a_person_is_in_and_what_expires(place, monkeypatch):
    line, release = place
    monkeypatch.setenv("ASSAY_HOME", str(line.parts.home))
    done = CliRunner().invoke(app, ["data", "who", "--subject", "person-1"])
    assert "3 records, 3 rows made from them" in done.output
    assert f"release     {release.digest}  {NAME}/production" in done.output
    done = CliRunner().invoke(app, ["data", "who", "--subject", "person-1", "--json"])
    assert json.loads(done.output) == trace_subject(line.parts, "person-1").payload()
    done = CliRunner().invoke(app, ["data", "expiring", "--before", "2031-01-01"])
    assert "nothing expires before 2031-01-01" in done.output

    row = line.parts.ledger.entry(trace_subject(line.parts, "person-1").rows[0])
    assert row is not None
    soon = Origin.model_validate(row.origin.payload() | {"retain_until": "2030-12-31"})
    line.parts.ledger.record([row.model_copy(update={"row": OTHER, "parents": (), "origin": soon})])
    done = CliRunner().invoke(app, ["data", "expiring", "--before", "2031-01-01", "--json"])
    (told,) = json.loads(done.output)
    assert (told["retain_until"], told["records"], told["derived"]) == ("2030-12-31", 1, 0)
    done = CliRunner().invoke(app, ["data", "expiring", "--before", "2031-01-01"])
    assert "2030-12-31          1 records, 0 made from them  generated://small" in done.output


def test_a_row_whose_key_this_installation_never_had_is_not_called_erased(place):
    line, _ = place
    known = line.parts.ledger.entry(trace_subject(line.parts, "person-1").rows[0])
    assert known is not None
    stray = "sha256:" + "2" * 64
    line.parts.ledger.record([known.model_copy(update={"row": stray, "subject": "0" * 32, "parents": ()})])
    found = trace(line.parts, stray)
    assert isinstance(found, RowTrace)
    assert not found.erased


def test_what_is_neither_answer_nor_row(place):
    line, _ = place
    with pytest.raises(Missing, match="no answer has the trace id nobody"):
        trace(line.parts, "nobody")
    with pytest.raises(Missing, match="the ledger has no row"):
        trace(line.parts, "sha256:" + "0" * 64)
