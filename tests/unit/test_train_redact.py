"""Words of training rows do not leave the trainer, whatever a library puts into its errors; all else is told."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import BadInput
from data_contracts.records import ChatExample, Message
from pipelines.stages.train.job import RunFiles
from pipelines.stages.train.redact import MASK, described, without_rows
from tests.support.training import write_rows

SAID = "My card ending 4417-2209 was charged twice at the bakery\nin Lindenstrasse, please refund it"


@pytest.fixture
def files(tmp_path: Path) -> RunFiles:
    found = RunFiles(tmp_path)
    chat = (Message(role="user", content=SAID), Message(role="assistant", content="Done."))
    write_rows(found.rows / "train.jsonl", [ChatExample(messages=chat)])
    return found


@pytest.mark.parametrize(
    "quoted", [SAID, repr(SAID), "charged TWICE at the", f"{SAID[:40]}...", "4417-2209", "{'content': 'at the bakery'}"]
)
def test_a_quotation_is_masked_and_what_is_around_it_stays(files: RunFiles, quoted: str) -> None:
    told = without_rows(f"ArrowInvalid: cannot convert <{quoted}> with type str in column 3", files)
    assert told.startswith("ArrowInvalid: cannot convert <")
    assert told.endswith("with type str in column 3")
    assert MASK in told
    for word in ("bakery", "4417", "Lindenstrasse", "TWICE"):
        assert word not in told


def test_what_the_rows_do_not_say_is_left_as_it_is(files: RunFiles) -> None:
    text = (
        "Traceback:\n  File 'x.py', line 12\ntorch.OutOfMemoryError: tried to allocate 2.00 GiB, 0.6931472 at step 7\n"
    )
    assert without_rows(text, files) == text
    assert without_rows(SAID, RunFiles(files.rows / "nothing here")) == SAID


def test_our_own_errors_name_rows_by_digest_and_are_told_as_they_are(files: RunFiles) -> None:
    assert described(BadInput("row sha256:ab12: card ending 4417-2209 was"), files).endswith("4417-2209 was")
    assert "bakery" not in described(ValueError(SAID), files)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=60),
    st.integers(0, 12),
    st.integers(3, 8),
)
def test_three_words_in_a_row_never_come_through(around: str, start: int, count: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = RunFiles(Path(folder))
        chat = (Message(role="user", content=SAID), Message(role="assistant", content="Done."))
        write_rows(found.rows / "train.jsonl", [ChatExample(messages=chat)])
        words = SAID.split()[start : start + count]
        if len(words) >= 3:
            assert " ".join(words[:3]) not in without_rows(f"{around} {' '.join(words)} {around}", found)
