"""Rows whose time is up leave the next mixture, are listed, and cost an unchanged line nothing."""

import json
from datetime import date
from pathlib import Path

import pytest

from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data import steps
from tests.support.data import DataParts, product_of, simple_rows, write_contract

LAST_DAY = date(2031, 3, 31)


def place(tmp_path: Path, keep_for_good: bool = True) -> tuple[DataParts, Product, DatasetManifest]:
    """Ten rows to be kept until the last day and, but for one test, ten for good; up to decontamination."""
    sources: list[dict[str, object]] = []
    for number, terms in enumerate([{"retainUntil": LAST_DAY.isoformat()}, {}][: 1 + keep_for_good]):
        path = tmp_path / f"source-{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in simple_rows(20)[number * 10 : number * 10 + 10]))
        contract = write_contract(tmp_path / f"c{number}.yaml", {"text": "string", "intent": "string"}, **terms)
        sources.append({"url": str(path), "contract": contract, "mapping": {"user": "{text}", "assistant": "{intent}"}})
    parts, product = DataParts(tmp_path / "home"), product_of(tmp_path, *sources)
    manifest, _ = steps.raw(parts, product)
    for step in (steps.contracted, steps.ledgered, steps.scrubbed, steps.deduplicated, steps.decontaminated):
        manifest, _ = step(parts, product, manifest)
    return parts, product, manifest


def test_expired_rows_leave_the_mixture_and_are_listed(tmp_path: Path) -> None:
    parts, product, clean = place(tmp_path)
    before, _ = steps.mixture(parts, product, clean, LAST_DAY)
    assert (before.counts.rows_out, before.counts.dropped) == (20, {})
    after, hit = steps.mixture(parts, product, clean, date(2031, 4, 1))
    assert not hit
    assert (after.counts.rows_out, after.counts.dropped) == (10, {"expired": 10})
    told = {reason for _, _, reason, _ in parts.datasets.read_quarantine(after.action_key)}
    assert len(told) == 1
    assert "was to be kept until 2031-03-31" in told.pop()


def test_a_day_on_which_nothing_expires_is_a_hit(tmp_path: Path) -> None:
    parts, product, clean = place(tmp_path)
    first, _ = steps.mixture(parts, product, clean, date(2031, 1, 1))
    assert steps.mixture(parts, product, clean, LAST_DAY) == (first, True)
    later, _ = steps.mixture(parts, product, clean, date(2031, 4, 1))
    assert steps.mixture(parts, product, clean, date(2032, 1, 1)) == (later, True)


def test_a_mixture_of_which_all_is_expired_is_refused(tmp_path: Path) -> None:
    parts, product, clean = place(tmp_path, keep_for_good=False)
    with pytest.raises(Refused, match="expired"):
        steps.mixture(parts, product, clean, date(2031, 4, 1))
