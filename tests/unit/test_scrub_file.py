"""A file's rows are scrubbed one by one, in order, whole or not at all; JSON stays JSON."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.data.protocols import Finding
from pipelines.stages.data.scrub_file import BATCH_ROWS, ScrubWork, scrub_file
from pipelines.stages.data.scrub_text import Operator, leaves, read_as, scrubbed
from resources.batch_engine import LocalBatchEngine
from tests.support.data import QuickAnalyzer

EMAIL = "jo.ann@hartlets.example"


def scrub(text: str, operator: Operator = Operator.REDACT, key: bytes = b"k") -> tuple[str, list[Finding]]:
    found = leaves(text)
    return scrubbed(text, found, QuickAnalyzer().find([read_as(found)])[0], operator, key)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (Operator.REDACT, r"mail <EMAIL_ADDRESS>, not <EMAIL_ADDRESS> or <EMAIL_ADDRESS>"),
        (Operator.MASK, r"mail \*\*\*\*, not \*\*\*\* or \*\*\*\*"),
        (Operator.HASH, r"mail (<EMAIL_ADDRESS:\w{16}>), not (?!\1)<EMAIL_ADDRESS:\w{16}> or \1"),
        (Operator.REPLACE, r"mail ([\w.]+@[\w.]+), not (?!\1)[\w.]+@[\w.]+ or \1"),
    ],
)
def test_each_operator_treats_one_value_alike_all_over_a_text(operator: Operator, expected: str) -> None:
    text = f"mail {EMAIL}, not bob@web.de or {EMAIL}"
    out, findings = scrub(text, operator)
    assert re.fullmatch(expected, out)
    assert EMAIL not in out
    assert [text[f.start : f.end] for f in findings] == [EMAIL, "bob@web.de", EMAIL]


def test_a_hash_depends_on_its_key_and_needs_one() -> None:
    assert scrub(EMAIL, Operator.HASH, b"one")[0] != scrub(EMAIL, Operator.HASH, b"two")[0]
    with pytest.raises(ValueError, match="needs a key"):
        scrub(EMAIL, Operator.HASH, b"")


def test_of_json_only_values_change_and_places_are_those_of_the_input() -> None:
    text = '{ "bob@web.de": ["Maria \\u004beller", 12.50],  "note": "say \\"bob@web.de\\"\\n", "ok": true }'
    out, findings = scrub(text)
    assert out == '{ "bob@web.de": ["<PERSON>", 12.50],  "note": "say \\"<EMAIL_ADDRESS>\\"\\n", "ok": true }'
    assert [text[f.start : f.end] for f in findings] == ["Maria \\u004beller", "bob@web.de"]


words = st.text(st.characters(codec="utf-8") | st.sampled_from('"\\{}[]:,@\n\t'), max_size=12)
planted = words | st.just(EMAIL) | st.builds("{} Maria Keller {}".format, words, words)
trees = st.recursive(
    planted | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(planted, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(trees, max_size=3) | st.dictionaries(planted, trees, max_size=3), st.booleans(), st.sampled_from(Operator)
)
def test_json_stays_json_of_the_same_shape(value: Any, ascii_only: bool, operator: Operator) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    out, findings = scrub(text, operator)
    assert shape(json.loads(out)) == shape(value)
    if not findings:
        assert out == text
    assert all(0 <= f.start < f.end <= len(text) for f in findings)
    assert not any("Maria Keller" in leaf.value for leaf in leaves(out))


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, list) else None


@given(st.text(st.characters(), max_size=40))
def test_a_text_without_findings_is_untouched(text: str) -> None:
    found = leaves(text)
    assert scrubbed(text, found, [], Operator.REDACT) == (text, [])


@pytest.mark.parametrize("text", ['{"a": "\\ud800 Maria Keller"}', "[" * 5000 + '"Maria Keller"' + "]" * 5000])
def test_half_characters_and_deep_nests_are_no_obstacle(text: str) -> None:
    out, _ = scrub(text)
    assert out == text.replace("Maria Keller", "<PERSON>")
    assert out.encode()


def test_rows_keep_their_fields_and_order_whatever_the_workers(tmp_path: Path) -> None:
    rows = [{"id": n, "text": f"{n}: Maria Keller, {n}@web.de", "x": {"y": n}} for n in range(3 * BATCH_ROWS + 5)]
    source, work = write(tmp_path / "in.jsonl", rows), ScrubWork(QuickAnalyzer(), Operator.REPLACE)
    outs = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}.jsonl"
        report = scrub_file(source, "text", out, LocalBatchEngine(workers), work)
        outs.append(out.read_bytes())
    assert outs[0] == outs[1]
    done = [json.loads(line) for line in outs[0].splitlines()]
    assert [(row["id"], row["x"]) for row in done] == [(row["id"], row["x"]) for row in rows]
    for before, after in zip(rows, done, strict=True):
        assert "Maria" not in after["text"]
        kinds = {e["entity_type"]: before["text"][e["start"] : e["end"]] for e in after["entities"]}
        assert kinds == {"PERSON": "Maria Keller", "EMAIL_ADDRESS": f"{before['id']}@web.de"}
    found = {"entities": {"EMAIL_ADDRESS": len(rows), "PERSON": len(rows)}, "rows_with_entities": len(rows)}
    assert report.payload() == {"in": len(rows), "out": len(rows), "dropped": []} | found


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "a", "entities": []}, "line 2 has a field 'entities'"),
        ({"other": "a"}, "line 2: the field 'text' is missing"),
        ({"text": 5}, "line 2: the field 'text' is not a text"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "a"}, row])
    with pytest.raises(BadInput, match=told):
        scrub_file(
            source, "text", tmp_path / "out.jsonl", LocalBatchEngine(), ScrubWork(QuickAnalyzer(), Operator.MASK)
        )
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_without_its_report_there_is_no_output(tmp_path: Path) -> None:
    source, work = write(tmp_path / "in.jsonl", [{"text": EMAIL}]), ScrubWork(QuickAnalyzer(), Operator.MASK)
    out, report = tmp_path / "out.jsonl", tmp_path / "none" / "report.json"
    with pytest.raises(BadInput, match=r"the folder .*none does not exist"):
        scrub_file(source, "text", out, LocalBatchEngine(), work, report)
    assert os.listdir(tmp_path) == ["in.jsonl"]


class Dying(QuickAnalyzer):
    def find(self, *_: Any, **__: Any) -> Any:
        os._exit(9)


def test_a_worker_that_dies_is_one_clear_error_and_nothing_is_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "a"}] * 3)
    with pytest.raises(Unavailable, match="a worker process died"):
        scrub_file(source, "text", tmp_path / "out.jsonl", LocalBatchEngine(2), ScrubWork(Dying(), Operator.MASK))
    assert os.listdir(tmp_path) == ["in.jsonl"]


def test_the_engine_reads_only_a_few_batches_ahead() -> None:
    taken: list[int] = []

    def batches() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    results = LocalBatchEngine(2).map(str, batches())
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    assert len(taken) <= 8
    results.close()  # type: ignore[attr-defined]
