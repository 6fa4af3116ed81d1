"""Answers of a teacher as rows for a student: who may teach, what is asked, what is kept, and that all is counted."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from data_contracts.contract import load_contract
from data_contracts.errors import BadInput, Refused
from data_contracts.policy import judge, load_policy
from pipelines.cli import app
from pipelines.recipes.product import ROOT
from pipelines.settings import Settings
from pipelines.stages.data.check import check_file
from pipelines.stages.data.distil import DistillationPlan, blocked, check_licence, distil, load_distillation
from pipelines.stages.data.distil import read_prompts as read
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from pipelines.wiring import Line
from resources.local_teacher import LocalTeacher
from tests.support.data import ORIGIN
from tests.support.teacher import TEACHER, FakeEndpoint, Reply, teaching
from tests.support.tiny import make_tiny_base

CONTRACT = ROOT / "data_contracts" / "contracts" / "distilled-conversations.yaml"
TOOL = {"name": "get_invoice", "description": "look up an invoice", "parameters": {"invoice_id": "its number"}}
QUESTIONS = [
    "Where is my invoice of last month?",
    "Please tell me what two seats cost in a year.",
    "My card expired, what happens to the plan?",
    "Can you pause everything while I am travelling?",
]


def plan_of(**changes: object) -> DistillationPlan:
    shipped = yaml.safe_load((ROOT / "pipelines" / "distillation" / "billing-support.yaml").read_text())
    return DistillationPlan.model_validate(shipped | changes)


def write_prompts(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(question: str, **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": "An old answer."}]
    return {"messages": said} | fields


def done(folder: Path, rows: list[dict[str, Any]], answer: Any, plan: DistillationPlan | None = None) -> Any:
    plan = plan or plan_of()
    with AnswerFile(folder / "answers") as kept:
        return distil(plan, read(write_prompts(folder, rows), plan), "served", FakeEndpoint(answer), kept)


def test_answers_become_rows_that_keep_their_contract(tmp_path: Path) -> None:
    rows = [asked(question, id=f"p{n}") for n, question in enumerate(QUESTIONS)]
    made = done(tmp_path, rows, lambda body: f"As to this: {body['messages'][-1]['content']}")
    assert [row["messages"][-1]["content"] for row in made.rows] == [f"As to this: {each}" for each in QUESTIONS]
    assert [row["prompt"] for row in made.rows] == ["p0", "p1", "p2", "p3"]
    out = tmp_path / "rows.jsonl"
    out.write_text("".join(json.dumps(row) + "\n" for row in made.rows))
    assert check_file(out, CONTRACT).dropped == []
    assert "seats" not in json.dumps(made.payload())


def test_a_teacher_whose_terms_forbid_it_is_not_asked_and_each_prompt_says_why(tmp_path: Path) -> None:
    forbidding = {"model": "vendor/large", "terms": "vendor terms 2.1", "training": "forbidden"}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan_of(teacher=forbidding).model_dump(mode="json")))
    write_prompts(tmp_path, [asked(question) for question in QUESTIONS])
    with teaching(lambda body, before: Reply("An answer.")) as server:
        result = command(tmp_path, server.url)
        assert not server.seen
    assert isinstance(result.exception, Refused)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["yields"] == {"row": 0, "vendor-terms": 4}
    assert "vendor/large is forbidden (vendor terms 2.1)" in report["dropped"][0]["reason"]
    assert not (tmp_path / "answers.jsonl").exists()
    # Rows that came another way are stopped by the data policy, which no setting can waive.
    terms = load_contract(CONTRACT).terms
    assert terms.generatedBy is not None
    made = terms.generatedBy.model_copy(update={"training": "forbidden"})
    policy = load_policy(ROOT / "data_contracts" / "policies" / "research.yaml")
    decision = judge(policy, "own-model", ORIGIN, terms.model_copy(update={"generatedBy": made}))
    assert (decision.verdict, decision.code) == ("block", "vendor-terms")


@pytest.mark.parametrize("training", ["unclear", "forbidden"])
def test_only_allowed_is_allowed(training: str) -> None:
    assert blocked(plan_of(teacher={"model": "m", "terms": "t", "training": training}), []) is not None
    assert blocked(plan_of(), []) is None


@pytest.mark.parametrize(("found", "fits"), [("apache-2.0", True), ("llama3", False), ("unknown", False)])
def test_a_teacher_must_itself_be_under_the_terms_that_the_plan_states(found: str, fits: bool) -> None:
    if fits:
        check_licence(plan_of(), found)
        return
    with pytest.raises(Refused, match=f"its own files say {found}"):
        check_licence(plan_of(), found)


def test_each_answer_that_is_none_is_dropped_with_its_reason(tmp_path: Path) -> None:
    answers = {"a": "  ", "b": "QUESTION", "c": "plain words", "d": '{"tool": "other", "arguments": {}}'}
    answers |= {"e": '{"tool": "get_invoice", "arguments": {"invoice_id": "INV-1"}}'}
    rows = [asked(f"{key} {question}") for key, question in zip("ab", QUESTIONS, strict=False)]
    more = ["Show me the one from May", "Which of them is still open?", "Kindly fetch number INV-1"]
    rows += [asked(f"{key} {question}", tools=[TOOL]) for key, question in zip("cde", more, strict=True)]

    def answer(body: Mapping[str, Any]) -> str:
        question = str(body["messages"][-1]["content"])
        return answers[question[0]].replace("QUESTION", question)

    made = done(tmp_path, rows, answer)
    assert made.facts["yields"] == {"row": 1, "schema": 2, "empty": 1, "echo": 1}
    (row,) = made.rows
    assert json.loads(row["messages"][-1]["content"])["tool"] == "get_invoice"
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]


def test_a_question_that_repeats_another_is_not_asked_twice(tmp_path: Path) -> None:
    rows = [asked("Where is invoice 17 that you sent in May?"), asked("Where is invoice 99 that you sent in May?")]
    endpoint = FakeEndpoint(lambda body: "On its way.")
    plan = plan_of()
    with AnswerFile(tmp_path / "answers") as kept:
        made = distil(plan, read(write_prompts(tmp_path, rows), plan), "served", endpoint, kept)
    assert len(endpoint.asked) == 1
    assert made.facts["yields"] == {"row": 1, "near-duplicate": 1}
    assert made.report.dropped[0]["match"] == "0"


@settings(max_examples=10)
@given(order=st.integers(0, 1000), alike=st.sampled_from([0.6, 1.0]))
def test_everything_is_counted_and_the_order_of_answers_does_not_matter(order: int, alike: float) -> None:
    import tempfile

    questions = [*QUESTIONS, "Where is my invoice of last month, please?", QUESTIONS[0]]
    results = []
    for shuffled in (0, order):
        with tempfile.TemporaryDirectory() as folder, AnswerFile(Path(folder) / "answers") as kept:
            plan = plan_of(alike=alike)
            prompts = read(write_prompts(Path(folder), [asked(each) for each in questions]), plan)
            endpoint = FakeEndpoint(lambda body: f"Well. {random.Random(body['seed']).random()}", shuffled)
            made = distil(plan, prompts, "served", endpoint, kept)
        assert sum(made.facts["yields"].values()) == len(questions)
        results.append((made.rows, made.payload()))
    assert results[0] == results[1]


def test_what_the_contract_needs_of_the_prompts_row_is_kept(tmp_path: Path) -> None:
    plan = plan_of(keep=["person", "consent"])
    made = done(tmp_path, [asked(QUESTIONS[0], person="anna", consent="contract")], lambda body: "Yes.", plan)
    assert (made.rows[0]["person"], made.rows[0]["consent"]) == ("anna", "contract")
    with pytest.raises(BadInput, match=r"line 1: has no field person"):
        read(write_prompts(tmp_path, [asked(QUESTIONS[0])]), plan)
    with pytest.raises(ValueError, match="licence: is written for each row anyway"):
        plan_of(keep=["licence"])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "hello"}, "has no messages"),
        ({"messages": [{"role": "system", "content": "be brief"}]}, "is not the user's"),
        ({"messages": [{"role": "user"}]}, "Field required"),
        (asked("hello", licence="CC-BY-NC-4.0"), "is under CC-BY-NC-4.0, the plan's rows under CC0-1.0"),
    ],
)
def test_a_row_that_is_no_prompt_is_named(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=rf"prompts\.jsonl, line 2: .*{told}"):
        read(write_prompts(tmp_path, [asked("first"), row]), plan_of())


def test_an_unknown_key_of_a_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan_of().model_dump(mode="json") | {"colour": "blue"}))
    with pytest.raises(BadInput, match=r"plan\.yaml: colour"):
        load_distillation(tmp_path / "plan.yaml")


def command(folder: Path, teacher: str, *more: str) -> Result:
    files = ["--plan", str(folder / "plan.yaml"), "--prompts", str(folder / "prompts.jsonl")]
    files += ["--out", str(folder / "answers.jsonl"), "--report", str(folder / "report.json")]
    return CliRunner().invoke(app, ["distil", "answers", *files, "--teacher", teacher, *more])


def test_the_command_asks_a_server_and_writes_rows(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan_of().model_dump(mode="json")))
    write_prompts(tmp_path, [asked(question) for question in QUESTIONS])
    with teaching(lambda body, before: Reply(f"Certainly, {body['model']}.")) as server:
        result = command(tmp_path, server.url)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in rows] == [f"Certainly, {TEACHER}."] * 4


def test_a_teacher_in_a_folder_answers_and_its_licence_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    folder = make_tiny_base(tmp_path / "teacher")
    (folder / "README.md").write_text("---\nlicense: llama3\n---\n")
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    (tmp_path / "template.jinja").write_text(template)
    plan = plan_of(chat_template=str(tmp_path / "template.jinja"), max_tokens=16, temperature=1.0)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    write_prompts(tmp_path, [asked(question) for question in QUESTIONS])
    refused = command(tmp_path, str(folder))
    assert isinstance(refused.exception, Refused)
    assert "its own files say llama3" in str(refused.exception)

    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    command(tmp_path, str(folder))
    report = json.loads((tmp_path / "report.json").read_text())
    # Its weights are random: what it says is no answer, but it was asked, and each prompt has its reason.
    assert sum(report["yields"].values()) == 4
    assert len((tmp_path / "answers.jsonl.answers").read_text().splitlines()) == 4


def test_a_local_teacher_says_the_same_again(tmp_path: Path) -> None:
    teacher = LocalTeacher(make_tiny_base(tmp_path / "teacher"))
    body = {"messages": [{"role": "user", "content": "hello"}], "temperature": 1.0, "max_tokens": 12, "seed": 5}
    said: list[str] = []
    for seed in (5, 5, 6):
        teacher.ask({"sha256:" + "0" * 64: body | {"seed": seed}}, lambda digest, made: said.append(made.text))
    assert said[0] == said[1] != said[2]


def test_a_student_is_made_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    folder = make_tiny_base(tmp_path / "teacher")
    words = ["distil", "student", "--from", str(folder), "--layers", "1"]
    made = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).output)
    assert made["base"] == f"pruned:1:{folder}"
    line = Line(Settings(home=tmp_path / "home"))
    assert Path(made["folder"]) == line.store.tree(line.store.get_json(made["digest"])["tree"])
