"""`assay desk`: four techniques on the same goldens, what is asked again, what the sheet says, and wrong input."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Missing, Refused, Unavailable
from data_contracts.manifests import CheckpointManifest, ModelManifest
from evals.desk_sheet import DeskSheet
from pipelines import desk_cli
from pipelines.cli import app
from pipelines.stages.release.techniques import model_for
from tests.support.desk import DeskLine, DeskServer, answering
from tests.support.runs import make_record

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others
QUICK = ("--limit", "3", "--timed", "3")


@pytest.fixture
def server() -> Iterator[DeskServer]:
    with answering() as server:
        yield server


@pytest.fixture
def desk(server: DeskServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeskLine:
    made = DeskLine(tmp_path, server)
    monkeypatch.setattr(desk_cli, "Line", lambda: made.small.parts)
    return made


def select(desk: DeskLine, seed: int = 0) -> ModelManifest:
    model = desk.small.candidate(seed)
    desk.small.parts.log.append("model.selected", "small", {"model": model.digest}, actor="test")
    return model


def assay(*words: str) -> Result:
    return CliRunner().invoke(app, ["desk", "small", *words])


def sheet(*words: str) -> dict[str, Any]:
    done = assay("--json", *words)
    assert done.exit_code == 0, done.exception
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def rows(made: dict[str, Any], suite: int) -> dict[str, Any]:
    return {row["technique"]: row for row in made["suites"][suite]["rows"]}


def quality(made: dict[str, Any], suite: int) -> list[float]:
    return [row["quality"][0] for row in rows(made, suite).values()]


def test_the_techniques_answer_the_same_goldens_each_in_its_way(desk: DeskLine, server: DeskServer) -> None:
    model = select(desk)
    parts = desk.small.parts
    key = parts.store.get_manifest(model.checkpoint, CheckpointManifest).action_key
    parts.runs.put(make_record("a", action_key=key, seconds=30.0, cost=0.2))
    parts.runs.put(make_record("b", action_key=key, seconds=60.0, cost=0.4))

    made = sheet("--price", "3.6", "--timed", "10")

    assert list(rows(made, 0)) == ["prompt", "shots", "retrieval", "fine-tuned"]
    assert (quality(made, 0), quality(made, 1)) == ([0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0])
    assert [part["recall"] and part["recall"][0] for part in made["suites"]] == [None, 1.0]
    assert made["model"] == model.digest
    assert {body["model"] for body in server.asked} == {"base", model.weights}
    # each request is seen and paid for
    speeds = {name: row["speed"] for name, row in rows(made, 0).items()}
    assert (speeds["shots"]["requests"], speeds["shots"]["errors"]) == (8, {})
    assert speeds["shots"]["prompt_tokens"] > 2 * speeds["fine-tuned"]["prompt_tokens"]
    assert 0 < speeds["shots"]["p50_s"] <= speeds["shots"]["p95_s"]
    assert speeds["shots"]["cost"] == pytest.approx(speeds["shots"]["server_s"] * 3.6 / 3600)
    # the fine-tuned model does as well on both, with shorter prompts
    assert [part["choice"]["fit"] for part in made["suites"]] == [["shots", "fine-tuned"], ["retrieval", "fine-tuned"]]
    assert (made["choice"]["decision"], made["choice"]["technique"]) == ("recommend", "fine-tuned")
    # what its training took is saved after so many requests, or never where a loaded machine answered it slower
    assert made["training"] == {"seconds": 90.0, "cost": pytest.approx(0.6)}
    paid = made["suites"][0]["payback"]
    saved = speeds["shots"]["cost"] - speeds["fine-tuned"]["cost"]
    after = pytest.approx(0.6 / saved * 1000, abs=1) if saved > 0 else None
    assert (paid["alternative"], paid["requests"]) == ("shots", after)


def test_what_changes_faster_than_the_product_is_trained_is_not_for_fine_tuning(desk: DeskLine) -> None:
    select(desk)
    desk.write(retrained_days=2000)
    made = sheet("--timed", "3")
    facts = made["suites"][1]
    assert facts["volatility"]["per_year"][0] == pytest.approx(1 / 1.835, abs=0.01)
    assert (facts["choice"]["technique"], facts["choice"]["standings"]["fine-tuned"]) == ("retrieval", "barred")
    reason = "fine-tuned is out: a document changes 0.55 times a year, and the product is trained 0.18 times"
    assert facts["choice"]["reasons"][0] == reason
    assert made["suites"][0]["choice"]["standings"]["fine-tuned"] == "will do"
    assert made["choice"]["decision"] == "split"


def test_a_second_sheet_asks_only_for_what_is_timed_and_neither_quotes_anything(
    desk: DeskLine, server: DeskServer
) -> None:
    select(desk)
    first = assay(*QUICK, "--out", str(desk.folder / "page"))
    assert first.exit_code == 0, first.exception
    asked, timed = len(server.kept()), len(server.timed())
    assert (asked, timed) == (4 * (3 + 3), 4 * (3 + 3))
    again = sheet(*QUICK)
    assert (len(server.kept()), len(server.timed())) == (asked, 2 * timed)
    assert len({body["cache_salt"] for body in server.timed()}) == 2 * 2 * 4
    # the table is for people, its progress for those who wait
    assert "facts, contains of 3 items in 3 clusters" in first.output
    assert "Inconclusive: The intervals do not tell on calls, facts." in first.output
    assert "calls, retrieval: 3 of 3 answered" in first.output
    assert "calls: 3 of 3 timed" in first.output
    # the pages and the manifest hold figures and names
    pages = [(desk.folder / "page" / name).read_text() for name in ("report.html", "report.md")]
    for page in pages:
        assert "Inconclusive" in page
        assert "only the first 3 items" in page
        assert "no price" in page
    kept = desk.small.parts.store.get_manifest(again["digest"], DeskSheet)
    assert (kept.limit, kept.price, kept.training) == (3, None, None)
    for text in ("topic", "INV-", "These passages", "An assistant"):
        assert not any(text in page for page in (*pages, kept.model_dump_json()))


def test_the_live_model_is_asked_before_a_newer_one(desk: DeskLine) -> None:
    parts, product = desk.small.parts, desk.small.product
    first, second = select(desk), select(desk, seed=2)
    assert model_for(parts, product, "") == second
    live = desk.small.model_of(desk.small.live(seed=1))
    assert model_for(parts, product, "") == live
    assert model_for(parts, product, first.digest) == first


def test_without_worked_examples_questions_have_no_shots(desk: DeskLine) -> None:
    select(desk)
    desk.write(examples="")
    made = sheet(*QUICK)
    assert list(rows(made, 0)) == ["prompt", "shots", "retrieval", "fine-tuned"]
    assert list(rows(made, 1)) == ["prompt", "retrieval", "fine-tuned"]


def test_an_answer_that_never_comes_leaves_no_sheet(desk: DeskLine, server: DeskServer) -> None:
    select(desk)
    server.fails = True
    done = assay(*QUICK)
    assert isinstance(done.exception, Unavailable)
    assert "prompt: " in str(done.exception)
    assert "status 500" in str(done.exception)
    assert not (desk.small.parts.home / "reports").exists()


def refused(*words: str) -> str:
    done = assay(*words)
    assert isinstance(done.exception, BadInput | Missing | Refused), done.exception
    return str(done.exception)


def test_a_product_without_a_desk_says_what_to_add(desk: DeskLine, server: DeskServer) -> None:
    select(desk)
    desk.leave_out()
    assert "product small has no technique desk: add a section `desk`" in refused()
    assert server.asked == []


def test_without_a_model_it_says_how_to_get_one(desk: DeskLine) -> None:
    assert "no model of small was ever selected: `assay run small` makes one" in refused()
    assert "'latest' is not a digest" in refused("--candidate", "latest")
    assert "is not in the store" in refused("--candidate", "sha256:" + "0" * 64)


def test_faulty_files_are_told_before_anything_is_asked(desk: DeskLine, server: DeskServer) -> None:
    select(desk)
    documents = desk.folder / "documents.jsonl"
    good = documents.read_text()
    documents.write_text(good.replace("2026-01-10", "2027-01-10", 1))
    assert "documents.jsonl, line 1, field changed: 2027-01-10 is after 2026-11-01" in refused()
    documents.write_text("".join(good.splitlines(keepends=True)[1:]))
    assert "item f0, field cluster: d0 is no document of" in refused()
    documents.write_text(good)
    examples = desk.folder / "examples.jsonl"
    shown = json.loads(examples.read_text())
    examples.write_text(json.dumps(shown | {"text": "What do we say of topic0?"}) + "\n")
    assert "examples.jsonl, line 1, field text: a suite asks this very question" in refused()
    examples.write_text(json.dumps(shown | {"answers": [], "pattern": "x"}) + "\n")
    assert "examples.jsonl, line 1, field answers: an example shows the first" in refused()
    assert server.asked == []


def test_a_suite_that_nothing_goes_before_is_refused(desk: DeskLine) -> None:
    select(desk)
    desk.write(suites=["general-knowledge"])
    assert "general-knowledge is asked by lm-eval" in refused()
    desk.write(suites=["billing-help"])
    assert "billing-help has passages of its own" in refused()


def test_a_suite_without_the_schema_is_timed_without_it_too(desk: DeskLine, server: DeskServer) -> None:
    select(desk)
    desk.write(facts=[])
    suite = desk.folder / "calls.yaml"
    suite.write_text(suite.read_text() + "free: true\n")
    sheet(*QUICK)
    assert (len(server.kept()), len(server.timed())) == (12, 12)
    assert not any("structured_outputs" in body for body in server.asked)
