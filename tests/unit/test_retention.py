"""Rows whose time is up leave the next mixture, are listed, and cost an unchanged line nothing."""

import json
from datetime import date
from pathlib import Path

import pytest
import yaml

from data_contracts.contract import load_contract
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data import steps
from pipelines.stages.data.rows import load
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


def own_dates(tmp_path: Path, days: list[str], **terms: object) -> tuple[DataParts, Product, DatasetManifest]:
    """A row for each day, which is its own last one; up to decontamination."""
    rows = [row | {"until": day} for row, day in zip(simple_rows(len(days)), days, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text": "string", "intent": "string", "until": "date"}
    contract = tmp_path / "c.yaml"
    write_contract(contract, columns, retainUntilField="until", **terms)
    stated = yaml.safe_load(contract.read_text())
    stated["schema"][0]["properties"][2]["required"] = False
    contract.write_text(yaml.safe_dump(stated))
    source = {"url": str(tmp_path / "rows.jsonl"), "contract": str(contract)}
    product = product_of(tmp_path, source | {"mapping": {"user": "{text}", "assistant": "{intent}"}})
    parts = DataParts(tmp_path / "home")
    manifest, _ = steps.raw(parts, product)
    for step in (steps.contracted, steps.ledgered, steps.scrubbed, steps.deduplicated, steps.decontaminated):
        manifest, _ = step(parts, product, manifest)
    return parts, product, manifest


def test_rows_leave_on_their_own_last_days_or_the_contracts_if_that_is_earlier(tmp_path: Path) -> None:
    days = ["2030-01-31", "2030-06-30", "2032-01-01", ""]
    parts, product, clean = own_dates(tmp_path, days, retainUntil="2031-03-31")
    left = []
    for day in (date(2030, 1, 31), date(2030, 2, 1), date(2030, 3, 1), date(2030, 7, 1)):
        manifest, hit = steps.mixture(parts, product, clean, day)
        left.append((manifest.counts.dropped.get("expired", 0), hit))
    assert left == [(0, False), (1, False), (1, True), (2, False)]
    with pytest.raises(Refused, match="4 expired"):
        steps.mixture(parts, product, clean, date(2031, 4, 1))
    listed = [(str(each.retain_until), each.records) for each in parts.ledger.expiring(date(2033, 1, 1))]
    assert listed == [("2030-01-31", 1), ("2030-06-30", 1), ("2031-03-31", 2)]


def test_a_last_day_that_is_no_date_breaks_the_contract(tmp_path: Path) -> None:
    parts, product, clean = own_dates(tmp_path, ["2030-01-31", "soon", ""])
    contracted, _ = steps.contracted(parts, product, steps.raw(parts, product)[0])
    assert (clean.counts.rows_out, contracted.counts.dropped) == (2, {"contract": 1})
    (reason,) = [reason for _, _, reason, _ in parts.datasets.read_quarantine(contracted.action_key)]
    assert "until: is str, not date" in reason
    assert steps.mixture(parts, product, clean, date(2100, 1, 1))[0].counts.rows_out == 1


@pytest.mark.parametrize("term", ["retainUntilField", "dateField"])
def test_a_column_of_dates_must_be_one(tmp_path: Path, term: str) -> None:
    with pytest.raises(BadInput, match=f"{term}: the column 'text' must be a date"):
        load_contract(Path(write_contract(tmp_path / "c.yaml", {"text": "string"}, **{term: "text"})))
    with pytest.raises(BadInput, match="name the column 'gone'"):
        load_contract(Path(write_contract(tmp_path / "c.yaml", {"text": "string"}, **{term: "gone"})))


def test_of_copies_the_oldest_stays_and_one_without_a_date_never(tmp_path: Path) -> None:
    dates = ["", "2026-02-01T10:00:00+02:00", "2026-02-01T08:30:00", "2026-02-01T09:00:00Z", ""]
    rows = [{"text": f"Where is my parcel?{'!' * n}", "intent": "i", "made": day} for n, day in enumerate(dates)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    contract = tmp_path / "c.yaml"
    write_contract(contract, {"text": "string", "intent": "string", "made": "timestamp"}, dateField="made")
    contract.write_text(contract.read_text().replace("name: made\n    required: true", "name: made"))
    source = {"url": str(tmp_path / "rows.jsonl"), "contract": str(contract)}
    product = product_of(tmp_path, source | {"mapping": {"user": "{text}", "assistant": "{intent}"}})
    parts = DataParts(tmp_path / "home")
    manifest, _ = steps.raw(parts, product)
    for step in (steps.contracted, steps.ledgered, steps.scrubbed, steps.deduplicated):
        manifest, _ = step(parts, product, manifest)
    (kept,) = load(parts, manifest)
    assert kept.row["date"] == "2026-02-01T08:00:00+00:00"
    assert manifest.counts.dropped == {"exact-duplicate": 4}
