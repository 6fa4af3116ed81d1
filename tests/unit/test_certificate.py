"""What a certificate says of a detector, on texts where the right numbers are known."""

import json
from pathlib import Path

import pytest

from data_contracts.errors import BadInput, Refused
from data_contracts.policy import PiiRule
from pipelines.stages.data.certificate import Labelled, measure, read_labelled, require
from pipelines.stages.data.protocols import Finding

TEXT = "Ann from Bern, 9 Oak Lane"
LABELS = Labelled(TEXT, (Finding(0, 3, "PERSON"), Finding(9, 13, "GPE"), Finding(15, 25, "STREET_ADDRESS")))


def test_characters_count_and_a_kind_counts_under_its_canonical_name() -> None:
    found = [Finding(0, 8, "PERSON"), Finding(9, 13, "LOCATION"), Finding(17, 25, "LOCATION")]
    certificate = measure([LABELS], [found], "detector")
    person, city, street = (certificate.entities[kind] for kind in ("PERSON", "GPE", "STREET_ADDRESS"))
    assert (person.precision, person.character_recall) == (3 / 8, 1.0)
    assert (city.precision, city.character_recall) == (1.0, 1.0)
    assert street.recall.estimate == 0.8
    assert street.recall.low < 0.8 < street.recall.high
    assert street.f2 == pytest.approx(5 * 0.8 / (4 + 0.8))
    assert certificate.overall.character_recall == 15 / 17
    assert certificate.overall.precision == 15 / 20
    assert certificate.overall.spans == 3


def test_another_kind_does_not_count_and_nothing_found_is_no_number() -> None:
    wrong = measure([LABELS], [[Finding(0, 3, "AGE")]], "detector").entities["PERSON"]
    assert (wrong.character_recall, wrong.precision, wrong.f2) == (0.0, None, None)


def test_a_certificate_is_json_without_text() -> None:
    said = json.dumps(measure([LABELS], [[]], "detector").payload())
    assert "Oak" not in said
    assert json.loads(said)["entities"]["GPE"]["spans"] == 1


@pytest.mark.parametrize(
    "span", ["x", {"entity_type": "A", "start": 3, "end": 3}, {"entity_type": "A", "start": 0, "end": 9}]
)
def test_a_span_that_is_none_is_named(tmp_path: Path, span: object) -> None:
    (tmp_path / "l.jsonl").write_text(json.dumps({"text": "four", "spans": [span]}))
    with pytest.raises(BadInput, match=r"line 1: .* is no span of its text"):
        read_labelled(tmp_path / "l.jsonl")


def test_the_names_of_presidio_research_are_read(tmp_path: Path) -> None:
    span = {"entity_type": "PERSON", "entity_value": "Ann", "start_position": 0, "end_position": 3}
    (tmp_path / "l.jsonl").write_text(json.dumps({"full_text": "Ann", "spans": [span]}))
    assert read_labelled(tmp_path / "l.jsonl") == [Labelled("Ann", (Finding(0, 3, "PERSON"),))]


def test_a_policy_blocks_a_detector_that_finds_too_little_and_says_how_little() -> None:
    half = measure([LABELS], [[Finding(0, 3, "PERSON"), Finding(9, 11, "LOCATION")]], "detector")
    require(half, PiiRule(labelled="l.jsonl", min_recall={"PERSON": 1.0, "GPE": 0.5}))
    with pytest.raises(Refused, match=r"finds 0\.500 of GPE in l\.jsonl \(95 % interval .*, n=1\), .* demands 0\.9"):
        require(half, PiiRule(labelled="l.jsonl", min_recall={"GPE": 0.9}))
    with pytest.raises(Refused, match="labels no IBAN_CODE"):
        require(half, PiiRule(labelled="l.jsonl", min_recall={"IBAN_CODE": 0.9}))
