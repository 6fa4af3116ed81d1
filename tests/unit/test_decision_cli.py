"""`assay decision`, `dispute`, `freeze`, `incident` and `audit`: what they say, and what they refuse."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Refused
from pipelines.cli import app
from pipelines.settings import Settings
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.retrain_decision import decide_and_record
from pipelines.terminal import person
from pipelines.wiring import Line
from tests.unit.signals.test_drift import report_of

PRODUCT = "billing-assistant"


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSAY_TRUST_ROOT", str(tmp_path / "trust"))
    return Line(Settings())


def assay(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_a_decision_is_shown_with_what_holds_it_and_who_disputed_it(line: Line) -> None:
    assert "nothing was decided" in assay("decision", PRODUCT).output
    assert "is open" in assay("incident", "open", "--reason", "wrong invoices", "--product", PRODUCT).output
    decide_and_record(line, report_of(drifted=True).model_copy(update={"product": PRODUCT}), load_policy(), [120])
    assert "disputed" in assay("dispute", PRODUCT, "--reason", "a campaign").output

    shown = assay("decision", PRODUCT).output

    for said in (
        "hold",
        "wrong invoices",
        "held by incident",
        "take 2 minutes",
        f"disputed by {person()}",
        "a campaign",
    ):
        assert said in shown
    told = json.loads(assay("decision", PRODUCT, "--json").output)
    assert (told["decision"], told["disputes"][0]["reason"]) == ("hold", "a campaign")
    assert isinstance(assay("decision", "no-such-product").exception, BadInput)


def test_freeze_tells_what_holds_each_product(line: Line) -> None:
    assert f"{PRODUCT}: free" in assay("freeze").output
    assay("incident", "open", "--reason", "the cluster is down")
    assert "the cluster is down" in json.loads(assay("freeze", "--json").output)[PRODUCT]
    assert isinstance(assay("incident", "close", "--reason", "x", "--product", PRODUCT).exception, Refused)
    assert "closed" in assay("incident", "close", "--reason", "up again").output
    (line.home / "freeze.yaml").write_text(
        "windows: [{owner: ada, reason: audit, begins: 2026-01-01T00:00:00Z, ends: 2126-01-01T00:00:00Z}]"
    )
    assert "by ada: audit" in assay("freeze").output
    (line.home / "freeze.yaml").write_text("windows: [{owner: ada}]")
    assert "windows.0" in str(assay("freeze").exception)


def test_audit_lists_who_did_what(line: Line) -> None:
    assert "no such record" in assay("audit").output
    key = assay("key", "create", "acme").output.strip()
    assay("incident", "open", "--reason", "one", "--product", PRODUCT)
    line.log.append("notice.sent", PRODUCT, {"notice": "x"}, actor="notices")

    shown = assay("audit").output
    assert key not in shown
    assert [each.split()[3] for each in shown.splitlines()] == ["key.created", "incident.opened", "notice.sent"]
    assert f"{person()}  incident.opened  {PRODUCT}  reason=one" in shown

    def found(*words: str) -> list[str]:
        return [each["event"] for each in json.loads(assay("audit", "--json", *words).output)]

    assert found("--actor", "cli:*") == ["key.created", "incident.opened"]
    assert found("--event", "incident.*") == ["incident.opened"]
    assert found("--product", PRODUCT) == ["key.created", "incident.opened", "notice.sent"]
    assert found("--since", "2126-01-01") == found("--until", "2026-01-01") == []
    wrong = assay("audit", "--since", "2026-02-01", "--until", "2026-01-01")
    assert isinstance(wrong.exception, BadInput)
