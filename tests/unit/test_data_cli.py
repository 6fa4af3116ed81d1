"""`assay data ...` on plain files: what it says, what it writes, how it ends."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from pipelines.cli import app
from tests.support.data import write_contract


def test_check_lists_the_rows_that_break_their_contract(tmp_path: Path) -> None:
    contract = write_contract(tmp_path / "intents.yaml", {"text": "string", "intent": "string"})
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a", "intent": "b"}\n\n{"text": 1, "intent": "b"}\nnot json\n')
    report = tmp_path / "report.json"
    words = ["data", "check", "--in", str(rows), "--contract", contract, "--report", str(report)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "3 rows in, 1 out, 2 dropped" in done.output
    found = json.loads(report.read_text())
    assert (found["in"], found["out"], [drop["row"] for drop in found["dropped"]]) == (3, 1, [2, 3])
    assert "text: is int, not string" in found["dropped"][0]["reason"]
    rows.write_text('{"text": "a", "intent": "b"}\n')
    assert CliRunner().invoke(app, words).exit_code == 0


@pytest.mark.parametrize("content", [None, ""])
def test_check_refuses_a_file_of_no_use(tmp_path: Path, content: str | None) -> None:
    contract = write_contract(tmp_path / "intents.yaml", {"text": "string", "intent": "string"})
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    done = CliRunner().invoke(app, ["data", "check", "--in", str(path), "--contract", contract])
    assert isinstance(done.exception, BadInput)
    assert str(path) in str(done.exception)
