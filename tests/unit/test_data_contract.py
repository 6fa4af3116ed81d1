"""Contracts and policies: what they let through, and what they say of the rest."""

from pathlib import Path

import pytest
import yaml

from data_contracts.contract import DataContract, Terms, load_contract
from data_contracts.errors import BadInput, Refused
from data_contracts.ledger import Origin
from data_contracts.policy import DataPolicy, check_human_floor, judge, load_policy
from data_contracts.rowcheck import Repeats, check_row
from pipelines.recipes.product import ROOT

CONTRACTS = sorted((ROOT / "data_contracts" / "contracts").glob("*.yaml"))
POLICIES = sorted((ROOT / "data_contracts" / "policies").glob("*.yaml"))
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_every_contract_of_the_project_is_read(path: Path) -> None:
    assert load_contract(path).owner()


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_every_policy_of_the_project_is_read(path: Path) -> None:
    assert load_policy(path).purposes


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (ROOT / "data_contracts" / "contracts" / "billing-conversations.yaml").read_text()
    assert old in text
    path = tmp_path / "contract.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("apiVersion: v3.1.0", "apiVersion: v2.2.0", "apiVersion"),
        ("kind: DataContract", "kind: Dataset", "kind"),
        ("version: 1.0.0", "versoin: 1.0.0", "version"),
        ("        required: true", "        requried: true", "requried"),
        ("metric: invalidValues", "metric: freshness", "metric"),
        ("logicalType: array", "logicalType: list", "logicalType"),
        ("    value: licence", "    value: license", "license"),
        ("property: licenceField\n    value: licence", "property: licence\n    value: free", "SPDX"),
        ("property: tier", "property: teir", "teir"),
        ("value: silver", "value: platinum", "tier"),
        ('pattern: "^[a-z][0-9]{4}$"', 'pattern: "["', "pattern"),
        ("schema:", "schemas:", "schema"),
        ("apiVersion", "\tapiVersion", "cannot be read"),
    ],
)
def test_a_bad_contract_is_refused_with_file_and_field(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = changed(tmp_path, old, new)
    with pytest.raises(BadInput) as refused:
        load_contract(path)
    assert str(path) in str(refused.value)
    assert told in str(refused.value)


def test_a_contract_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    for content in (b"", b"[1, 2]", b"\xff\xfe\x00", b"- \x00"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=str(path)):
            load_contract(path)
    with pytest.raises(BadInput, match="nowhere"):
        load_contract(tmp_path / "nowhere.yaml")


def contract() -> DataContract:
    columns = [
        {"name": "id", "logicalType": "string", "unique": True},
        {"name": "n", "logicalType": "integer", "logicalTypeOptions": {"minimum": 1, "maximum": 5}},
        {"name": "when", "logicalType": "date"},
        {
            "name": "text",
            "logicalType": "string",
            "required": True,
            "logicalTypeOptions": {"minLength": 2, "maxLength": 5, "pattern": "^[a-z]*$"},
        },
    ]
    return DataContract.model_validate(
        {
            "apiVersion": "v3.0.2",
            "kind": "DataContract",
            "id": "t",
            "version": "1",
            "status": "draft",
            "team": {"members": [{"username": "a"}, {"username": "b", "role": "owner"}]},
            "table": {"name": "t", "properties": columns},
            "terms": {
                "licence": "MIT",
                "consent": "consent",
                "purposes": ["own-model"],
                "tier": "gold",
                "syntheticDepth": 0,
            },
        }
    )


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": 5}, "text"),
        ({"text": "a"}, "text"),
        ({"text": "abcdef"}, "text"),
        ({"text": "AB"}, "text"),
        ({"text": "ok", "n": "six"}, "n"),
        ({"text": "ok", "n": 0}, "n"),
        ({"text": "ok", "n": 6}, "n"),
        ({"text": "ok", "n": True}, "n"),
        ({"text": "ok", "when": "yesterday"}, "when"),
        ({"text": "ok", "other": 1}, "other"),
    ],
)
def test_a_row_that_breaks_its_contract_is_told_where_and_what_to_do(row: dict[str, object], field: str) -> None:
    (reason,) = check_row(contract().table, row)
    assert reason.startswith(f"{field}: ")
    assert ";" in reason


def test_a_row_that_keeps_its_contract_passes_also_as_text_of_a_csv() -> None:
    assert check_row(contract().table, {"id": "1", "n": "3", "when": "2031-01-02", "text": "ok"}) == []
    assert contract().owner() == "b"


def test_a_value_that_must_be_unique_comes_once() -> None:
    repeats = Repeats(contract().table)
    assert repeats.check({"id": "1"}) == []
    assert repeats.check({"id": "2"}) == []
    assert repeats.check({"id": "1"})[0].startswith("id: ")


def origin(**changes: object) -> Origin:
    values = {
        "source": "s",
        "source_digest": DIGEST,
        "contract": DIGEST,
        "licence": "MIT",
        "consent": "consent",
        "purposes": ["own-model"],
        "retain_until": None,
        "tier": "gold",
    }
    return Origin.model_validate(values | changes)


POLICY = {"licences": ["MIT"], "consent": ["consent"], "human_floor": 0.5, "max_synthetic_depth": 1}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"licence": "CC-BY-NC-4.0"}, "licence"),
        ({"licence": "NOASSERTION"}, "licence"),
        ({"consent": "none"}, "consent"),
        ({"purposes": ["inference"]}, "purpose"),
        ({"synthetic_depth": 2}, "synthetic-depth"),
    ],
)
def test_the_policy_judges_a_row_by_its_ledger_entry(change: dict[str, object], code: str) -> None:
    policy = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": POLICY}})
    decision = judge(policy, "own-model", origin(**change), contract().terms)
    assert decision.code == code
    assert (decision.verdict == "allow") == (code == "")


def terms(**changes: object) -> Terms:
    return Terms.model_validate(contract().terms.payload() | changes)


MADE = {"model": "big-model-4", "terms": "Vendor Terms 2025, section 2", "training": "forbidden"}


@pytest.mark.parametrize(
    ("change", "rule", "code", "told"),
    [
        ({"regulated": "GDPR Art. 9"}, {}, "regulated", "DPIA"),
        ({"regulated": "GDPR Art. 9", "signOff": "DPIA-7"}, {}, "", ""),
        ({"generatedBy": MADE, "syntheticDepth": 1}, {}, "vendor-terms", "big-model-4, whose terms forbid"),
        ({"generatedBy": MADE, "syntheticDepth": 1}, {"unclear_vendor_terms": True}, "vendor-terms", "section 2"),
        ({"generatedBy": MADE | {"training": "unclear"}, "syntheticDepth": 1}, {}, "vendor-terms", "leave open"),
        ({"generatedBy": MADE | {"training": "unclear"}, "syntheticDepth": 1}, {"unclear_vendor_terms": True}, "", ""),
        ({"generatedBy": MADE | {"training": "allowed"}, "syntheticDepth": 1}, {}, "", ""),
        ({"region": "US"}, {"regions": ["DE", "FR"]}, "region", "DE, FR"),
        ({}, {"regions": ["DE", "FR"]}, "region", "not stated"),
        ({"region": "FR"}, {"regions": ["DE", "FR"]}, "", ""),
    ],
)
def test_the_policy_judges_a_source_by_its_contract(change, rule, code: str, told: str) -> None:
    policy = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": POLICY | rule}})
    decision = judge(policy, "own-model", origin(), terms(**change))
    assert decision.code == code
    assert (decision.verdict == "allow") == (code == "")
    assert told in decision.reason


def test_every_reason_against_a_row_is_told() -> None:
    policy = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": POLICY}})
    decision = judge(policy, "own-model", origin(licence="CC-BY-NC-4.0"), terms(regulated="HIPAA"))
    assert decision.code == "licence"
    assert "CC-BY-NC-4.0" in decision.reason
    assert "HIPAA" in decision.reason


def test_production_rows_need_a_training_purpose() -> None:
    policy = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": POLICY}})
    decision = judge(policy, "own-model", origin(purposes=["inference"]), terms())
    assert decision.verdict == "block"
    assert "needs a training purpose before it may be learned from" in decision.reason


def test_weights_by_tier_licence_and_region_multiply() -> None:
    rule = POLICY | {"licence_weights": {"MIT": 0.5}, "region_weights": {"US": 0.4}}
    tiers = {"gold": 1.0, "silver": 0.8, "bronze": 0.5}
    policy = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": rule}, "tier_weights": tiers})
    assert judge(policy, "own-model", origin(tier="bronze"), terms(region="US")).share == 0.1
    decision = judge(policy, "own-model", origin(), terms())
    assert (decision.verdict, decision.share) == ("weight", 0.5)
    assert decision.reason == "licence MIT has weight 0.5"


def test_terms_that_a_contract_does_not_state_leave_its_digest_alone() -> None:
    assert contract().digest == "sha256:68525aecae8d95ca13e4ec5fca38eeedc120ef8a80e56259278231e301908704"
    assert DataContract.model_validate(contract().payload()) == contract()
    stated = contract().model_copy(update={"terms": terms(region="DE")})
    assert stated.digest != contract().digest
    assert DataContract.model_validate(stated.payload()) == stated


@pytest.mark.parametrize(
    "change", [{"signOff": "DPIA-7"}, {"generatedBy": MADE}, {"region": "Germany"}, {"licence": "unknown"}]
)
def test_terms_that_contradict_themselves_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        terms(**change)


def test_the_human_floor_needs_people_or_a_waiver() -> None:
    strict = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": POLICY}}).rule("own-model")
    check_human_floor(strict, 10, 5)
    with pytest.raises(Refused, match="human_floor_waiver"):
        check_human_floor(strict, 10, 6)
    waived = POLICY | {"human_floor_waiver": {"by": "me", "reason": "only a demonstration"}}
    check_human_floor(
        DataPolicy.model_validate({"name": "p", "purposes": {"own-model": waived}}).rule("own-model"), 10, 10
    )


@pytest.mark.parametrize(
    "change",
    [
        {"licences": ["free"]},
        {"licences": []},
        {"consent": ["none"]},
        {"human_floor": 2},
        {"human_flor": 0.1},
        {"licence_weights": {"CC0-1.0": 0.5}},
        {"regions": ["DE"], "region_weights": {"US": 0.5}},
    ],
)
def test_a_bad_policy_is_refused_with_its_file(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"name": "p", "purposes": {"own-model": POLICY | change}}))
    with pytest.raises(BadInput, match=str(path)):
        load_policy(path)


def test_a_purpose_that_the_policy_does_not_name_is_refused() -> None:
    policy = DataPolicy.model_validate({"name": "p", "purposes": {"own-model": POLICY}})
    with pytest.raises(Refused, match="shared-model"):
        policy.rule("shared-model")
