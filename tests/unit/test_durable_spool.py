"""The spool of traces: whatever crashes, each trace that was taken is handed on, and what was not is counted."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import Unavailable
from pipelines.recipes.product import ROOT
from resources.durable_spool import LIMIT, DurableSpool
from resources.traces import Spooled
from tests.support.patience import eventually
from tests.support.traces import make_shadow, make_trace


class Store:
    """Knows a trace again. ``fails``: what becomes of the next deliveries."""

    def __init__(self, fails: Sequence[str] = ()) -> None:
        self.kept: list[str] = []
        self.delivered: Counter[str] = Counter()
        self.fails = list(fails)

    def take(self, segment: str, kept: Sequence[Spooled]) -> int:
        fail = self.fails.pop(0) if self.fails else "not"
        if fail == "before":
            raise Unavailable("dead")
        names = [(each.trace or each.shadow).trace_id for each in kept]  # type: ignore[union-attr]
        new = [name for name in dict.fromkeys(names) if name not in self.kept]
        self.kept += new
        self.delivered.update(names)
        if fail == "after":
            raise TimeoutError("it was committed, and nobody heard of it")
        return len(new)


def spooled(number: int) -> Spooled:
    return Spooled(trace=make_trace(f"t{number}", number))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 5)),
        st.tuples(st.just("drain"), st.just(0)),
        st.tuples(st.just("killed"), st.integers(0, 40)),
    ),
    max_size=12,
)
FAILS = st.lists(st.sampled_from(["not", "before", "after"]), max_size=8)


@settings(max_examples=60)
@given(
    steps=STEPS, fails=st.lists(st.sampled_from(["not", "before", "after"]), max_size=8), segment=st.integers(1, 2000)
)
def test_each_trace_is_there_once_whatever_crashes(
    steps: list[tuple[str, int]], fails: list[str], segment: int
) -> None:
    """The thread is left out, so that each step is where it is said to be."""
    store, added = Store(fails), 0
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "spool"
        spool, torn = DurableSpool(folder, Spooled, store.take, segment=segment), 0

        def drain() -> None:
            with suppress(Unavailable, TimeoutError):
                spool._empty(spool._stop)

        for step, number in steps:
            if step == "add":
                for _ in range(number):
                    assert spool.add(spooled(added))
                    added += 1
            elif step == "drain":
                drain()
            else:  # the kernel lets go of the lock; the last line may have been cut short
                if spool._file is not None:
                    os.write(spool._file, spooled(9999).model_dump_json().encode()[:number])
                    torn += number > 0
                spool._let_go()
                spool = DurableSpool(folder, Spooled, store.take, segment=segment)
        store.fails.clear()
        drain()
        assert sorted(store.kept) == sorted(f"t{number}" for number in range(added))
        assert store.kept == [f"t{number}" for number in range(added)], "in their order"
        assert list(folder.glob("*")) == []


def test_what_a_dead_process_left_comes_first_and_a_torn_line_is_counted(tmp_path: Path) -> None:
    store = Store()
    spool = DurableSpool(tmp_path, Spooled, store.take)
    spool.add(spooled(0))
    assert spool._file is not None
    os.write(spool._file, b'{"trace":{"trace_id":"cut')
    spool._let_go()
    spool = DurableSpool(tmp_path, Spooled, store.take)
    assert [each.trace.trace_id for _, kept in spool.left() for each in kept if each.trace] == ["t0"]
    spool.start()
    assert spool.add(Spooled(shadow=make_shadow("s1")))
    assert spool.flush()
    spool.close(0)
    assert store.kept == ["t0", "s1"]
    counts = spool.counts()
    assert (counts.stored, counts.torn, counts.waiting, counts.lost) == (2, 1, 0, 0)


def test_a_segment_that_is_written_to_by_another_is_left_alone(tmp_path: Path) -> None:
    store, theirs = Store(), DurableSpool(tmp_path, Spooled, Store().take)
    theirs.add(spooled(1))
    ours = DurableSpool(tmp_path, Spooled, store.take)
    ours.add(spooled(2))
    ours._empty(ours._stop)
    assert store.kept == ["t2"]
    theirs._let_go()
    ours._empty(ours._stop)
    assert store.kept == ["t2", "t1"]


def test_what_another_leaves_is_handed_on_though_nothing_new_comes(tmp_path: Path) -> None:
    store, theirs = Store(), DurableSpool(tmp_path, Spooled, Store().take)
    theirs.add(spooled(1))
    ours = DurableSpool(tmp_path, Spooled, store.take)
    ours.start()
    assert ours.flush()
    assert store.kept == []
    theirs._let_go()  # as one does who dies
    assert eventually(lambda: store.kept == ["t1"])
    ours.close(0)


def test_a_line_that_is_no_trace_is_kept_for_a_person(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    line = spooled(1).model_dump_json(exclude_unset=True)
    (tmp_path / "1.jsonl").write_text(f'{line}\n{{"trace": {{"of": "a later version"}}}}\n')
    spool = DurableSpool(tmp_path, Spooled, store.take)
    spool.start()
    assert spool.flush()
    spool.close(0)
    assert store.kept == ["t1"]
    assert [path.name for path in tmp_path.iterdir()] == ["1.unreadable"]
    assert "1 lines are no traces" in caplog.text


def test_beyond_its_limit_traces_are_lost_counted_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    size = len(spooled(0).model_dump_json(exclude_unset=True)) + 1
    spool = DurableSpool(tmp_path, Spooled, store.take, limit=2 * size + 10)
    assert [spool.add(spooled(number)) for number in range(4)] == [True, True, False, False]
    assert caplog.text.count("traces are lost") == 1
    spool._empty(spool._stop)
    assert spool.add(spooled(4))
    assert "takes traces again; 2 were lost so far" in caplog.text
    spool._empty(spool._stop)
    assert (store.kept, spool.counts().lost) == (["t0", "t1", "t4"], 2)


FULL = """
import resource, sys
from pathlib import Path
from resources.durable_spool import DurableSpool
from resources.traces import Spooled
from tests.unit.test_durable_spool import spooled

most = resource.RLIMIT_FSIZE
resource.setrlimit(most, (1000, resource.getrlimit(most)[1]))
spool = DurableSpool(Path(sys.argv[1]), Spooled, lambda segment, kept: len(kept))
print([spool.add(spooled(number)) for number in range(4)])
resource.setrlimit(most, (100_000, resource.getrlimit(most)[1]))
print(spool.add(spooled(4)), spool.counts().lost)
"""


def test_a_full_disk_costs_traces_and_no_answer(tmp_path: Path) -> None:
    """A file that may not grow takes a part of a line, as a full disk does."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[True, False, False, False]\nTrue 3\n"
    assert done.stderr.count("traces are lost") == 1
    store = Store()
    spool = DurableSpool(tmp_path, Spooled, store.take)
    spool._empty(spool._stop)
    assert (store.kept, spool.counts().torn) == (["t0", "t4"], 0)


def test_the_limit_is_the_one_that_the_page_states() -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    assert LIMIT == 1 << 30
    assert "1 GiB" in page
