"""`assay costs`: what tenants used by the records of runs and by what the gateway counted, priced where prices are
stated."""

import csv
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from data_contracts.digests import sha256_bytes
from data_contracts.errors import BadInput
from data_contracts.traces import Residence, Trace
from pipelines import costs_cli
from pipelines.cli import app
from pipelines.recipes.product import ROOT
from pipelines.settings import Settings
from pipelines.wiring import Line
from tests.support.line import SmallLine
from tests.support.pieces import NAME
from tests.support.runs import STARTED, make_record

PRICES = {
    "currency": "EUR",
    "gpu_minute": 0.05,
    "cpu_minute": 0.01,
    "prompt_1000": 0.2,
    "completion_1000": 0.6,
    "memory_gib_hour": 0.5,
}
GIB_HOUR = 3600 << 30
DAY = timedelta(days=1)


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Line:
    """Products bills and mail of tenant acme, chat of zeta; idle of a tenant that asks for nothing."""
    products = tmp_path / "products"
    products.mkdir()
    shipped = yaml.safe_load((ROOT / "pipelines/products/billing-assistant.yaml").read_text())
    for name, tenant in (("bills", "acme"), ("mail", "acme"), ("chat", "zeta"), ("idle", "nobody")):
        (products / f"{name}.yaml").write_text(yaml.safe_dump(shipped | {"name": name, "tenant": tenant}))
    made = Line(Settings(home=tmp_path / "home", trust_root=tmp_path / "trust", products=products))
    monkeypatch.setattr(costs_cli, "Line", lambda: made)
    return made


def trained(line: Line, run: str, product: str, seconds: float, gpus: int = 0, started: datetime = STARTED) -> None:
    ended = started + timedelta(seconds=seconds)
    record = make_record(run, product=product, started=started, ended=ended, seconds=seconds)
    line.runs.put(record.model_copy(update={"gpu_seconds": seconds * gpus}))


def answered(line: Line, product: str, tenant: str, tokens: tuple[int, int], time: datetime = STARTED) -> None:
    digest = sha256_bytes(b"base")
    trace = Trace(
        trace_id=f"{product}-{tenant}-{tokens}-{time}",
        time=time,
        tenant=tenant,
        product=product,
        route="base",
        release=None,
        base=digest,
        adapter=None,
        template=digest,
        status=200,
        prompt_chars=9,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        latency_ms=1,
        json_valid=True,
    )
    line.traces.add(trace)
    assert line.traces.flush()


def resident(line: Line, product: str, tenant: str, gib_hours: float, time: datetime = STARTED) -> None:
    count = round(gib_hours * GIB_HOUR)
    line.traces.add_residence(Residence(time=time, tenant=tenant, product=product, byte_seconds=count))
    assert line.traces.flush()


def assay(*words: str) -> Result:
    return CliRunner().invoke(app, ["costs", *words])


def told(*words: str) -> dict[str, Any]:
    result = assay(*words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def used(rows: list[dict[str, Any]], *fields: str) -> list[list[Any]]:
    return [[row[field] for field in ("tenant", "product", *fields)] for row in rows]


def test_use_is_summed_by_product_and_tenant(line: Line) -> None:
    trained(line, "a", "bills", 90.0)
    trained(line, "b", "bills", 30.0)
    trained(line, "c", "mail", 60.0, gpus=4)
    answered(line, "bills", "acme", (100, 10))
    answered(line, "bills", "acme", (300, 30))
    answered(line, "chat", "zeta", (7, 0))
    found = told()
    assert used(found["products"], "runs", "gpu_minutes", "cpu_minutes") == [
        ["acme", "bills", 2, 0.0, 2.0],
        ["acme", "mail", 1, 4.0, 0.0],
        ["zeta", "chat", 0, 0.0, 0.0],
    ]
    assert used(found["products"], "requests", "prompt_tokens", "completion_tokens") == [
        ["acme", "bills", 2, 400, 40],
        ["acme", "mail", 0, 0, 0],
        ["zeta", "chat", 1, 7, 0],
    ]
    assert used(found["tenants"], "runs", "gpu_minutes", "cpu_minutes", "requests", "prompt_tokens") == [
        ["acme", "", 3, 4.0, 2.0, 2, 400],
        ["zeta", "", 0, 0.0, 0.0, 1, 7],
    ]
    assert used(told("--tenant", "zeta")["products"]) == [["zeta", "chat"]]


def test_memory_of_adapters_is_told_and_priced_also_where_nothing_was_asked(line: Line) -> None:
    answered(line, "bills", "acme", (1000, 0))
    resident(line, "bills", "acme", 1.5)
    resident(line, "mail", "acme", 0.25)
    resident(line, "chat", "zeta", 4, STARTED + DAY)
    (line.home / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    found = told()
    assert used(found["products"], "requests", "gib_hours", "serving", "memory", "total") == [
        ["acme", "bills", 1, 1.5, 0.2, 0.75, 0.95],
        ["acme", "mail", 0, 0.25, 0.0, 0.125, 0.125],
        ["zeta", "chat", 0, 4.0, 0.0, 2.0, 2.0],
    ]
    assert used(found["tenants"], "gib_hours", "memory") == [["acme", "", 1.75, 0.875], ["zeta", "", 4.0, 2.0]]
    assert "zeta, chat: 0 runs, 0.0 GPU min, 0.0 CPU min; 0 requests, 0 tokens in, 0 out; 4.00 GiB h" in assay().output
    assert used(told("--until", "2026-03-02")["tenants"], "gib_hours") == [["acme", "", 1.75]]


def test_without_prices_there_are_no_amounts_and_with_them_each_use_has_its_own(line: Line) -> None:
    trained(line, "a", "bills", 120.0)
    trained(line, "b", "bills", 60.0, gpus=2)
    trained(line, "c", "mail", 60.0)
    answered(line, "bills", "acme", (1500, 500))
    free = told()
    assert free["currency"] is None
    assert used(free["tenants"], "training", "serving", "total") == [["acme", "", None, None, None]]
    assert "prices.yaml does not exist" in assay().output

    (line.home / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    found = told()
    assert found["currency"] == "EUR"
    assert used(found["products"], "training", "serving", "total") == [
        ["acme", "bills", pytest.approx(0.12), pytest.approx(0.6), pytest.approx(0.72)],
        ["acme", "mail", pytest.approx(0.01), 0.0, pytest.approx(0.01)],
    ]
    assert used(found["tenants"], "total") == [["acme", "", pytest.approx(0.73)]]
    shown = assay().output
    assert (
        "acme, bills: 2 runs, 2.0 GPU min, 2.0 CPU min; 1 requests, 1,500 tokens in, 500 out; "
        "0.00 GiB h; 0.12 + 0.60 + 0.00" in shown
    )
    assert (
        "acme, in all: 3 runs, 2.0 GPU min, 3.0 CPU min; 1 requests, 1,500 tokens in, 500 out; "
        "0.00 GiB h; 0.13 + 0.60 + 0.00" in shown
    )


def test_a_run_counts_by_its_start_and_an_answer_by_its_end_so_that_months_add_up(line: Line) -> None:
    for number, at in enumerate((STARTED, STARTED + DAY, STARTED + 2 * DAY)):
        trained(line, f"a{number}", "bills", 60.0 * 10**number, started=at)
        answered(line, "bills", "acme", (10**number, 1), at)
    noon = (STARTED + DAY).strftime("%Y-%m-%dT%H:%M")
    before, after, day = told("--until", noon), told("--since", noon), told("--since", "2026-03-02", "--until", noon)
    assert used(before["products"], "cpu_minutes", "prompt_tokens") == [["acme", "bills", 1.0, 1]]
    assert used(after["products"], "cpu_minutes", "prompt_tokens") == [["acme", "bills", 110.0, 110]]
    assert day["products"] == []
    assert "no use in this time" in assay("--since", "2026-03-02", "--until", noon).output
    refused = assay("--since", noon, "--until", noon).exception
    assert isinstance(refused, BadInput)


def test_a_run_that_goes_on_counts_once_it_ended(line: Line) -> None:
    with line.locks.hold("training-" + sha256_bytes(b"work").removeprefix("sha256:")[:16]):
        line.runs.put(make_record("a", product="bills", outcome="running"))
        assert told()["products"] == []
    assert used(told()["products"], "runs") == [["acme", "bills", 1]]  # its locks are free: it was killed


def test_the_file_for_a_spreadsheet_has_a_row_a_product_and_no_sums(line: Line, tmp_path: Path) -> None:
    trained(line, "a", "bills", 60.0)
    answered(line, "mail", "acme", (1000, 0))
    (line.home / "prices.yaml").write_text(yaml.safe_dump(PRICES))
    file = tmp_path / "use.csv"
    assert assay("--csv", str(file)).exit_code == 0
    with file.open() as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["tenant"], row["product"], row["total"], row["currency"]) for row in rows] == [
        ("acme", "bills", "0.01", "EUR"),
        ("acme", "mail", "0.2", "EUR"),
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gpu_minute": None}, "gpu_minute"),
        ({"cpu_minute": -1}, "cpu_minute"),
        ({"prompt_1000": float("nan")}, "prompt_1000"),
        ({"memory_gib_hour": None}, "memory_gib_hour"),
        ({"gpu_hour": 2}, "gpu_hour"),
    ],
)
def test_a_price_that_is_missing_wrong_or_not_known_is_named(line: Line, change: dict[str, Any], said: str) -> None:
    line.home.mkdir()
    stated = {name: value for name, value in (PRICES | change).items() if value is not None}
    (line.home / "prices.yaml").write_text(yaml.safe_dump(stated))
    refused = assay().exception
    assert isinstance(refused, BadInput)
    assert "prices.yaml" in str(refused)
    assert said in str(refused)


def test_training_of_a_product_without_a_file_is_its_releases_tenants_or_shown_as_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SmallLine(tmp_path)
    release = made.release()
    monkeypatch.setattr(costs_cli, "Line", lambda: made.parts)
    trained(made.parts, "a", NAME, 60.0)
    trained(made.parts, "b", "never-released", 60.0)
    assert used(told()["products"]) == sorted([[release.tenant, NAME], ["unknown", "never-released"]])
