"""From what users said to rows: decided by a person, chained, and only then learned from; and gone with the person."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Missing
from data_contracts.feedback import Feedback
from data_contracts.manifests import DatasetManifest
from pipelines.cli import app
from pipelines.recipes.product import Product, Source
from pipelines.settings import Settings
from pipelines.stages.data import steps
from pipelines.stages.data.rows import load
from pipelines.stages.signals.adjudication import decide, queue, undecided
from pipelines.stages.signals.retention import expire_feedback
from pipelines.wiring import Line
from tests.support.data import STAGES, DataParts, billing
from tests.support.feedback import make_exchange, make_feedback
from tests.support.traces import START, release

NAME = "billing-assistant"
SOURCES = (
    {"url": f"feedback://{NAME}?kind=sft", "contract": "feedback-conversations"},
    {"url": f"feedback://{NAME}?kind=preference", "contract": "feedback-preferences", "kind": "preference"},
)


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    made = DataParts(tmp_path)
    yield made
    made.feedback.close()


def product() -> Product:
    mixture = billing().mixture.model_copy(update={"replay_share": 0.0})
    return billing().model_copy(update={"sources": tuple(map(Source.model_validate, SOURCES)), "mixture": mixture})


def corrected(parts: Any, name: str, trace: str, correction: str, second: float = 0, **more: Any) -> Feedback:
    said = make_feedback(name, second, product=NAME, trace_id=trace, correction=correction, **more)
    parts.feedback.add(said)
    asked = [{"role": "user", "content": f"When does {trace} come?"}]
    parts.feedback.add_exchange(make_exchange(trace, product=NAME, messages=asked, answer="Soon.", subject="ann"))
    assert parts.feedback.flush()
    return said


def mixed(parts: Any) -> DatasetManifest:
    """Every step up to the mixture."""
    inputs: list[DatasetManifest] = []
    for name in STAGES[: STAGES.index("mixture") + 1]:
        done, _ = getattr(steps, name)(parts, product(), *inputs)
        inputs = [done]
    return inputs[0]


def rows_of(parts: Any, kind: str) -> list[dict[str, Any]]:
    return [item.row for item in load(parts, mixed(parts)) if item.row["kind"] == kind]


def test_the_queue_shows_what_says_the_same_and_what_disagrees(parts: Any) -> None:
    corrected(parts, "f1", "t1", "On the 2nd.")
    corrected(parts, "f2", "t1", "on  the 2nd.", 1)
    corrected(parts, "f3", "t1", "On the 3rd.", 2)
    corrected(parts, "f4", "t1", "Never.", 3, by="reviewer")
    parts.feedback.add(make_feedback("f5", 4, product=NAME, trace_id="t5", correction="words were not kept"))
    parts.feedback.add(make_feedback("f6", 5, product=NAME, trace_id="t1"))
    assert parts.feedback.flush()
    cases = {case.feedback.feedback_id: case for case in queue(parts, NAME)}
    assert list(cases) == ["f1", "f2", "f3", "f5"]
    assert (cases["f1"].same, cases["f1"].other) == (("f2",), ("f3", "f4"))
    assert cases["f3"].exchange is not None
    assert cases["f5"].exchange is None
    decide(parts, NAME, "f1", False, "the price list says otherwise", "cli:bea")
    assert [case.feedback.feedback_id for case in queue(parts, NAME)] == ["f2", "f3", "f5"]


def test_a_decision_is_chained_with_who_and_why(parts: Any) -> None:
    corrected(parts, "f1", "t1", "On the 2nd.")
    corrected(parts, "f12", "t2", "On the 2nd.")
    record = decide(parts, NAME, "f12", True, "checked", "cli:bea")
    assert (record.event, record.product, record.actor) == ("feedback.accepted", NAME, "cli:bea")
    assert record.body == {"feedback": "f12", "answer": "t2", "release": release("a"), "reason": "checked"}
    with pytest.raises(Missing, match="2 corrections"):
        decide(parts, NAME, "f1", True, "checked", "cli:bea")
    with pytest.raises(BadInput, match="reason"):
        decide(parts, NAME, "f12", True, " ", "cli:bea")


def test_only_what_was_accepted_or_a_reviewer_wrote_becomes_rows_that_name_their_answers(parts: Any) -> None:
    for number in range(4):
        corrected(parts, f"user{number}", f"t{number}", f"On day {number} of each month.", number)
    corrected(parts, "reviewer", "t8", "It comes with the next invoice.", 8, by="reviewer")
    decide(parts, NAME, "user1", True, "checked", "cli:bea")
    decide(parts, NAME, "user2", False, "wrong", "cli:bea")
    mixture = mixed(parts)
    items = [item for item in load(parts, mixture) if item.origin.answer is not None]
    assert {item.origin.answer.trace_id for item in items} == {"t1", "t8"}
    assert {item.origin.answer.release for item in items} == {release("a")}
    assert {item.subject for item in items} == {"ann"}
    told = {ref.url for ref in mixture.sources}
    assert {source["url"] for source in SOURCES} <= told
    chats = [item.row["example"]["messages"] for item in items if item.row["kind"] == "sft"]
    assert [
        {"role": "user", "content": "When does t1 come?"},
        {"role": "assistant", "content": "On day 1 of each month."},
    ] in chats
    pairs = [item.row["pair"] for item in items if item.row["kind"] == "preference"]
    assert ("On day 1 of each month.", "Soon.") in [(pair["chosen"], pair["rejected"]) for pair in pairs]


def test_of_several_corrections_of_an_answer_the_reviewers_counts(parts: Any) -> None:
    corrected(parts, "reviewer", "t1", "It comes with the next invoice.", 0, by="reviewer")
    corrected(parts, "user", "t1", "Never, I think.", 9)
    decide(parts, NAME, "user", True, "plausible", "cli:bea")
    (row,) = rows_of(parts, "sft")
    assert row["example"]["messages"][-1]["content"] == "It comes with the next invoice."
    decide(parts, NAME, "reviewer", False, "outdated", "cli:bea")
    (row,) = rows_of(parts, "sft")
    assert row["example"]["messages"][-1]["content"] == "Never, I think."


def test_what_is_old_is_deleted_and_counted_in_the_log(parts: Any) -> None:
    corrected(parts, "f1", "t1", "On the 2nd.")
    corrected(parts, "f2", "t2", "On the 3rd.", 99)
    (record,) = expire_feedback(parts, 1, START + timedelta(days=1, seconds=50))
    assert (record.event, record.body["feedback"], record.body["exchanges"]) == ("feedback.expired", 1, 2)
    assert expire_feedback(parts, 1, START + timedelta(days=1, seconds=50)) == []


def test_a_source_of_feedback_says_its_kind() -> None:
    for wrong in ("feedback://billing", "feedback://billing?kind=preference", "feedback://?kind=sft"):
        with pytest.raises(ValidationError, match="feedback of kind sft is"):
            Source(url=wrong, contract="feedback-conversations")


def test_what_came_later_or_without_its_words_is_not_waited_for(parts: Any) -> None:
    corrected(parts, "f1", "t1", "On the 2nd.")
    corrected(parts, "f2", "t2", "On the 3rd.", 99)
    parts.feedback.add(make_feedback("f3", 1, product=NAME, trace_id="t3", correction="words were not kept"))
    assert parts.feedback.flush()
    until = START + timedelta(seconds=50)
    assert undecided(parts, NAME, until) == 1
    decide(parts, NAME, "f1", True, "checked", "cli:bea")
    assert undecided(parts, NAME, until) == 0


def test_several_are_decided_alike_by_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path))
    line = Line(Settings(home=tmp_path))
    line.log.signer_line()
    for name in ("f1", "f2", "f3"):
        corrected(line, name, f"t-{name}", "On the 2nd.")
    told = CliRunner().invoke(app, ["feedback", "reject", NAME, "f1", "f3", "--reason", "the answers were right"])
    assert told.exit_code == 0, told.output
    assert [line for line in told.output.splitlines() if line.startswith("rejected: f")] == [
        "rejected: f1 (audit record 0)",
        "rejected: f3 (audit record 1)",
    ]
    assert [case.feedback.feedback_id for case in queue(line, NAME)] == ["f2"]
    line.feedback.close()
