"""Documents of a product: which are found for a question, how often they change, and what is wrong with a file."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import BadInput
from evals.document import LONGEST, Document, volatility
from evals.retrieval import nearest, read_documents, with_passages
from evals.suite import load_suite
from pipelines.recipes.product import ROOT, Desk, load_product
from tests.support.desk import ByWord

AS_OF = date(2026, 11, 1)
GOOD = {"id": "fees", "text": "A fee of 2 %.", "written": "2025-11-02", "changed": ["2026-01-05", "2026-10-05"]}


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    path = folder / "documents.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**GOOD, "id": "b", "changed": ["2026-12-24"]}, "line 2, field changed: 2026-12-24 is after 2026-11-01"),
        ({**GOOD, "id": "b", "changed": [], "written": "2026-12-24"}, "line 2, field written: 2026-12-24 is after"),
        ({**GOOD, "id": "b", "changed": ["2026-03-01", "2026-02-01"]}, "line 2, field the whole: changed: give each"),
        ({**GOOD, "id": "b", "changed": ["2025-01-01"]}, "all of them after `written`"),
        ({**GOOD, "id": "b", "changed": ["soon"]}, "line 2, field changed.0: Input should be a valid date"),
        ({**GOOD, "id": "b", "text": "x" * (LONGEST + 1)}, "split it into passages"),
        ({"id": "b", "text": "t"}, "line 2, field written: Field required: add it"),
        ({**GOOD, "id": "b", "author": "me"}, "line 2, field author: .*take it out"),
        (GOOD, "line 2: the id fees comes twice"),
        ("{", "line 2, field the whole: .*write one JSON object a line"),
    ],
)
def test_a_faulty_document_is_named_by_file_line_and_field(row: Any, told: str, tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, row)
    with pytest.raises(BadInput, match=told) as error:
        read_documents(path, AS_OF)
    assert str(path) in str(error.value)


def test_volatility_is_counted_by_document_and_year() -> None:
    fees = Document.model_validate(GOOD)
    still = Document(id="b", text="t", written=date(2024, 11, 2))
    found = volatility([fees, still], AS_OF)
    assert (found.documents, found.changes, found.lately) == (2, 2, 0.5)
    assert found.years == pytest.approx(3, abs=0.01)
    assert found.per_year.estimate == pytest.approx(2 / 3, abs=0.01)
    # Garwood's limits for a count of 2: 0.2422 and 7.2247
    assert found.per_year.low == pytest.approx(0.2422 / 3, abs=0.001)
    assert found.per_year.high == pytest.approx(7.2247 / 3, abs=0.01)
    assert volatility([still], AS_OF).per_year.low == 0


@given(st.lists(st.integers(0, 700), unique=True, max_size=20), st.integers(1, 700))
def test_only_changes_of_the_last_days_are_late_ones(days: list[int], lately: int) -> None:
    since = date(2024, 11, 1)
    changed = tuple(since + timedelta(days=day + 1) for day in sorted(days))
    document = Document(id="a", text="t", written=since, changed=changed)
    found = volatility([document], AS_OF)
    assert found.lately == float(any(AS_OF - day < timedelta(days=90) for day in changed))
    assert found.per_year.low <= found.per_year.estimate <= found.per_year.high


def passages(*texts: str) -> list[Document]:
    return [Document(id=text, text=text, written=AS_OF) for text in texts]


def test_the_likest_documents_come_first_and_ties_go_by_name() -> None:
    documents = passages("late fee", "refund of money", "card change")
    (found,) = nearest(ByWord(), documents, ["money back as a refund"], 2)
    assert [each.id for each in found] == ["refund of money", "card change"]
    for order in (documents, documents[::-1]):
        (tied,) = nearest(ByWord(), order, ["nothing alike"], 3)
        assert [each.id for each in tied] == sorted(each.id for each in documents)
    assert nearest(ByWord(), documents, [], 2) == []


def test_passages_stand_before_the_question() -> None:
    assert with_passages(passages("one", "two"), "Which?") == "These passages may help:\n[1] one\n[2] two\n\nWhich?"


def test_the_shipped_facts_name_documents_that_hold_the_answer() -> None:
    product = load_product("billing-assistant")
    desk = product.desk
    assert desk is not None
    documents = {each.id: each for each in read_documents(product.file("documents", desk.documents), desk.as_of)}
    items = load_suite(product.file("suite", "billing-facts")).items()
    assert len(items) == 24
    for item in items:
        text = documents[item.cluster].text.lower()
        assert any(answer.lower() in text for answer in item.answers), item.id
        assert not any(f" {answer.lower()} " in item.text.lower() for answer in item.answers), item.id
    passages_of_rag = {
        text
        for line in (ROOT / "evals/goldens/billing-help.jsonl").read_text().splitlines()
        for text in json.loads(line)["contexts"]
    }
    assert passages_of_rag & {each.text for each in documents.values()}


def test_a_desk_asks_each_suite_once() -> None:
    section = {"documents": "d", "as_of": AS_OF, "retrained_days": 90}
    for wrong in ({}, {"suites": ["a"], "facts": ["a"]}):
        with pytest.raises(ValueError, match="each once"):
            Desk.model_validate(section | wrong)
