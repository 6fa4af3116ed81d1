"""Whose rows an erasure concerns: what was made from a person's rows goes along, what is also somebody else's stays."""

from pathlib import Path

from pipelines.stages.data.item import Item
from pipelines.stages.data.rows import named
from pipelines.stages.signals.erasure_scope import family
from tests.support.data import ORIGIN, DataParts
from tests.unit.test_data_stores import entry


def test_rows_made_from_a_persons_rows_go_along_unless_they_are_another_persons_too(tmp_path: Path) -> None:
    parts = DataParts(tmp_path)
    ann, bob, made = named(parts, [(who, ORIGIN, {"n": n}) for n, who in enumerate(("ann", "bob", "made-up"))])
    again, shared = named(parts, [("made-up", ORIGIN, {"n": 4}), ("bob", ORIGIN, {"n": 5})])

    def record(item: Item, *parents: Item) -> None:
        parts.ledger.record([entry(item).model_copy(update={"parents": tuple(each.name for each in parents)})])

    record(ann)
    record(bob)
    record(made, ann)
    record(again, made)
    record(shared, ann, bob)
    found = family(parts, "ann")
    assert found.subjects == {"ann", "made-up"}
    assert found.rows == {ann.name, made.name, again.name}
    assert found.kept == (shared.name,)
    assert family(parts, "bob").rows == {bob.name, shared.name}
