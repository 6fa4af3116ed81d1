"""Contracts that others wrote in the Open Data Contract Standard: read as far as rows can be held to them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import load_contract, load_table
from data_contracts.errors import BadInput
from data_contracts.rowcheck import check_row
from data_contracts.standard import faults, read_yaml
from pipelines.recipes.product import ROOT
from pipelines.stages.data.check import check_file

SHIPPED = [*sorted((ROOT / "data_contracts/contracts").glob("*.yaml")), *sorted((ROOT / "benchmarks").rglob("*.yaml"))]

FOREIGN = """
apiVersion: v3.0.2
kind: DataContract
id: 53581432-6c55-4ba2-a65f-72344a91553a
name: orders
version: 2.1.0
status: Released
tenant: Harbour Goods
domain: sales
dataProduct: orders
contractCreatedTs: 2024-05-06T07:08:09Z
description: {purpose: Orders of the web shop, usage: Reports, limitations: None known}
tags: [orders, sales]
servers:
  - {server: production, type: postgres, host: localhost, port: 5432, database: shop, schema: public}
support: [{channel: "#orders", tool: slack, url: "https://example.org/orders"}]
price: {priceAmount: 9.95, priceCurrency: USD, priceUnit: megabyte}
team: [{username: adler, role: Analyst}, {username: keller, role: Owner, dateIn: 2023-01-01}]
roles: [{role: reader, access: read, firstLevelApprovers: manager}]
slaDefaultElement: orders.placed
slaProperties: [{property: retention, value: 3, unit: y}]
customProperties: [{property: costCentre, value: 4711}]
schema:
  - name: orders
    physicalName: orders_v1
    physicalType: table
    dataGranularityDescription: one row an order line
    tags: [gold]
    quality: [{type: text, description: Orders come within a day}]
    properties:
      - {name: order, logicalType: string, primaryKey: true, primaryKeyPosition: 1, required: true}
      - {name: line, logicalType: integer, primaryKey: true, primaryKeyPosition: 2, required: true}
      - {name: placed, logicalType: date, classification: internal, partitioned: true, partitionKeyPosition: 1}
      - {name: note, physicalType: varchar(200), description: No logical type, examples: [leave at the door]}
      - name: state
        logicalType: string
        criticalDataElement: true
        quality:
          - {type: text, description: A state of the order process, dimension: conformity, severity: error}
          - {metric: invalidValues, arguments: {validValues: [open, sent]}, mustBe: 0, unit: rows}
"""


def changed(tmp_path: Path, change: dict[str, Any] | None = None, **more: Any) -> Path:
    """The contract with ``change`` in its last property."""
    document = read_yaml(FOREIGN)
    document["schema"][0]["properties"][-1] |= change or {}
    document |= more
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("path", [each for each in SHIPPED if "kind: DataContract" in each.read_text()], ids=str)
def test_every_contract_here_keeps_the_standards_own_schema(path: Path) -> None:
    assert faults(read_yaml(path.read_text())) == []


def test_rows_are_checked_against_a_contract_that_knows_nothing_of_assay(tmp_path: Path) -> None:
    contract, rows = tmp_path / "contract.yaml", tmp_path / "rows.jsonl"
    contract.write_text(FOREIGN)
    good = {"order": "a", "line": 1, "placed": "2024-05-06", "note": 5, "state": "open"}
    changes: list[dict[str, Any]] = [{}, {"line": 2}, {}, {"line": 3, "state": "lost"}, {"line": 4, "placed": "soon"}]
    rows.write_text("".join(json.dumps(good | change) + "\n" for change in changes))
    report = check_file(rows, contract).payload()
    assert [(drop["row"], drop["reason"].split(":")[0]) for drop in report["dropped"]] == [
        (2, "order, line"),
        (3, "state"),
        (4, "placed"),
    ]


def test_a_source_needs_assays_terms_too(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"customProperties\.tier: Field required.*costCentre: is no term of Assay's"):
        load_contract(changed(tmp_path))


def test_what_another_vendor_reads_is_let_through(tmp_path: Path) -> None:
    terms = {"licence": "MIT", "consent": "contract", "purposes": ["own-model"], "tier": "gold", "syntheticDepth": 0}
    custom: list[dict[str, Any]] = [{"property": name, "value": value} for name, value in terms.items()]
    custom.append({"property": "costCentre", "value": 4711, "vendor": "harbour"})
    contract = load_contract(changed(tmp_path, apiVersion="v3.2.0", customProperties=custom))
    assert (contract.owner(), contract.terms.licence, contract.status) == ("keller", "MIT", "Released")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"requried": True}, r"properties\.state: .*'requried' was unexpected"),
        ({"required": "yes"}, r"properties\.state\.required: 'yes' is not of type 'boolean'"),
        ({"logicalTypeOptions": {"format": "uuid"}}, r"state\.logicalTypeOptions\.format: cannot be checked here"),
        ({"quality": [{"metric": "nullValues", "mustBe": 0}]}, r"state\.quality\.0\.metric: "),
        ({"quality": [{"type": "library", "rule": "nullCheck", "mustBe": 0}]}, r"'metric' is a required property"),
        ({"quality": [{"type": "sql", "query": "SELECT 1", "mustBe": 1}]}, r"quality\.0\.query: cannot be checked"),
        ({"quality": [{"metric": "invalidValues", "arguments": {"pattern": "a"}}]}, r"needs one of mustBe, mustNotBe"),
        ({"quality": [{"metric": "invalidValues", "mustBeLessThan": 5}]}, r"mustBeLessThan: cannot be checked here"),
    ],
)
def test_what_the_standard_does_not_have_and_what_cannot_be_checked_is_an_error(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        load_table(changed(tmp_path, change))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"apiVersion": "v2.2.2"}, r"apiVersion v2\.2\.2 is too old"),
        ({"colour": "blue"}, "colour"),
        ({"team": {"member": []}}, r"team: .*'member' was unexpected"),
        ({"schema": []}, "exactly one object"),
    ],
)
def test_a_contract_that_is_not_of_the_standard_is_refused(tmp_path: Path, more: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        load_table(changed(tmp_path, **more))


def test_a_rule_on_all_rows_is_an_error(tmp_path: Path) -> None:
    document = read_yaml(FOREIGN)
    document["schema"][0]["quality"] = [{"metric": "rowCount", "mustBeGreaterThan": 5}]
    with pytest.raises(BadInput, match=r"schema\.0\.quality: only rules on a property"):
        load_table(changed(tmp_path, schema=document["schema"]))


def test_an_enumeration_allows_its_values(tmp_path: Path) -> None:
    sizes = {"name": "size", "logicalType": "integer", "enum": [{"value": 1, "label": "small"}, {"value": 2}]}
    table = load_table(changed(tmp_path, sizes | {"quality": []}, apiVersion="v3.2.0"))
    row = {"order": "a", "line": 1}
    assert check_row(table, row | {"size": 2}) == []
    assert check_row(table, row | {"size": 3}) == ["size: is not one of 1, 2; correct the value"]
