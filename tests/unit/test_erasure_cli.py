"""`assay erase` and `assay erasures`: what they say, what they take, how they end."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Missing
from pipelines import erasure_cli
from pipelines.cli import app
from tests.support.erasing import MARK, PERSON, REASON, ErasingLine
from tests.support.search import traces_of


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ErasingLine:
    made = ErasingLine(tmp_path / "line")
    monkeypatch.setattr(erasure_cli, "Line", lambda: made.parts)
    return made


def assay(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, words, input=stdin)


def test_erase_says_what_was_done_and_what_is_left_to_do(line: ErasingLine) -> None:
    done = assay("erase", "--subject", "-", "--reason", REASON, stdin=f"{PERSON}\n")
    assert done.exit_code == 0, done.output
    for said in (
        "30 rows in 5 data sets; 1 checkpoints and 1 releases revoked",
        f"small: {line.clean.digest} answers now, was {line.tainted.digest}",
        "small: train anew (`assay run small`), which takes: about 20 s",
        f"take the person out of the source: {line.folder / 'source.jsonl'}",
    ):
        assert said in done.output
    assert PERSON not in done.output
    assert traces_of(line.parts.home, MARK) == []
    again = assay("erase", "--subject", PERSON, "--reason", REASON, "--json")
    (receipt,) = json.loads(again.output)
    assert receipt["again"] is True
    assert receipt["digest"] in done.output
    listed = assay("erasures")
    assert receipt["digest"] in listed.output
    assert "signed" in listed.output


def test_a_queued_request_waits_until_it_is_worked_off(line: ErasingLine) -> None:
    queued = assay("erase", "--pseudonym", line.subject, "--reason", REASON, "--queue")
    assert "waiting for the erasure sensor" in queued.output
    assert "waiting" in assay("erasures").output
    assert traces_of(line.parts.home, MARK)
    assert "1 releases revoked" in assay("erase", "--resume").output
    assert traces_of(line.parts.home, MARK) == []
    assert "nothing to finish" in assay("erase", "--resume").output


def test_what_cannot_be_done_is_told_and_does_nothing(line: ErasingLine) -> None:
    records = len(line.parts.log.records())
    stranger = assay("erase", "--subject", "c-10442", "--reason", REASON)
    assert isinstance(stranger.exception, Missing)
    assert "subjectKey" in str(stranger.exception)
    for words in (["erase"], ["erase", "--subject", PERSON], ["erase", "--subject", PERSON, "--resume"]):
        assert isinstance(assay(*words).exception, BadInput)
    assert len(line.parts.log.records()) == records
    assert "put no names" in " ".join(assay("erase", "--help").output.split())
