"""Plain files in and out: what is wrong with one is said once, and nothing is left half-written."""

import json
from pathlib import Path

import pytest

from data_contracts.errors import BadInput
from pipelines.stages.data.plain import rows, text_of, whole_file


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        (b'{"text": "a"}\n["text"]\n', "line 2 is a JSON list, not an object"),
        (b'{"text": "caf\xe9"}\n', "line 1 is not UTF-8"),
        (b'{"text": "a", "text": "b"}\n', "line 1 names a key twice"),
        (b'{"text": "a\\u0000b"}\n', "line 1 holds a NUL character"),
        (b'{"text": NaN}\n', "line 1 is not JSON"),
        (b'{"text": "\\ud800"}\n', "line 1 holds text that is not UTF-8"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1 is not JSON"),
        (b'{"text": "' + b" " * (17 << 20) + b'"}\n', "line 1 is longer than 16 MiB"),
    ],
)
def test_a_file_of_no_use_is_one_error_that_names_the_line(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=said):
        list(rows(path))


def test_bom_and_crlf_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}')
    assert list(rows(path)) == [(0, {"text": "a"}), (2, {"text": "b"})]


def test_a_name_in_capitals_says_the_same_of_a_file(tmp_path: Path) -> None:
    for name, data in (("ROWS.CSV", "text\na\n"), ("Rows.Jsonl", '{"text": "a"}\n')):
        (tmp_path / name).write_text(data)
        assert [row for _, row in rows(tmp_path / name)] == [{"text": "a"}]


def test_a_missing_file_and_a_missing_field_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        list(rows(tmp_path / "none.jsonl"))
    with pytest.raises(BadInput, match="line 3: the field 'text' is missing; its fields are: body"):
        text_of(tmp_path / "rows.jsonl", 2, {"body": "a"}, "text")
    with pytest.raises(BadInput, match=r"the field 'text' is not a text \(int\)"):
        text_of(tmp_path / "rows.jsonl", 2, {"text": 1}, "text")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("before")
    with pytest.raises(UnicodeEncodeError), whole_file(target) as handle:
        handle.writelines(["half", "\ud800"])
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]
    assert target.read_text() == "before"
    with whole_file(target) as handle:
        json.dump({"whole": True}, handle)
    assert json.loads(target.read_text()) == {"whole": True}
