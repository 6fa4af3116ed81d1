"""The bill of materials is valid CycloneDX, names everything by digest, and is the same every time."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from data_contracts.digests import canonical_json, hex_of, sha256_json
from data_contracts.manifests import BaseManifest
from pipelines.recipes.product import ROOT
from pipelines.stages.release import bom
from pipelines.stages.release.bom import ml_bom
from tests.support.dossier import Judged, judged
from tests.support.line import SmallLine


def faults(document: dict[str, Any]) -> list[str]:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    return [str(fault) for fault in validator.validate_str(json.dumps(document), all_errors=True) or []]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return judged(tmp_path_factory.mktemp("bom"), with_champion=True)


@pytest.fixture(scope="module")
def document(made: Judged) -> Any:
    return ml_bom(made.line.store, made.product, made.model, made.verdict)


def test_it_is_valid(document: Any) -> None:
    assert faults(document) == []


def test_the_validator_would_notice(document: Any) -> None:
    assert faults(document | {"colour": "blue"})
    assert faults(document | {"components": [{"type": "no such type", "name": "x"}]})


def test_every_reference_leads_to_a_component(document: Any) -> None:
    known = {each["bom-ref"] for each in [document["metadata"]["component"], *document["components"]]}
    named = {each["ref"] for each in document["dependencies"]} | {
        ref for each in document["dependencies"] for ref in each["dependsOn"]
    }
    card = document["metadata"]["component"]["modelCard"]
    assert named | {each["ref"] for each in card["modelParameters"]["datasets"]} <= known
    assert len(known) == 1 + len(document["components"])


def test_weights_base_tokenizer_data_and_software_are_named_by_digest_or_version(made: Judged, document: Any) -> None:
    by_name = {each["name"]: each for each in document["components"]}
    store = made.line.store
    base = store.get_manifest(made.model.base, BaseManifest)
    listed = store.get_json(base.tree)

    def files(component: Any) -> dict[str, str]:
        return {each["name"]: each["hashes"][0]["content"] for each in component["components"]}

    assert files(by_name["tiny"]) == {
        name: hex_of(digest) for name, digest in listed.items() if name != "tokenizer.json"
    }
    assert files(by_name["tiny tokenizer"]) == {"tokenizer.json": hex_of(listed["tokenizer.json"])}
    assert by_name["tiny"]["licenses"] == [{"expression": "Apache-2.0"}]
    (data,) = made.model.datasets
    assert by_name["billing-assistant-splits"]["hashes"] == [{"alg": "SHA-256", "content": hex_of(data)}]
    assert by_name["billing-assistant-decontaminated"]["data"][0]["sensitiveData"] == ["PERSON, replaced 3 times"]
    assert by_name["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert "device" not in by_name


def test_the_metrics_are_the_verdicts_with_their_intervals(made: Judged, document: Any) -> None:
    component = document["metadata"]["component"]
    metrics = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    for each in made.verdict.criteria:
        bounds = {"lowerBound": f"{each.ci_low:.4f}", "upperBound": f"{each.ci_high:.4f}"}
        assert any(
            (metric["slice"], metric["value"], metric["confidenceInterval"])
            == (each.suite, f"{each.effect:.4f}", bounds)
            for metric in metrics
        )
    assert component["modelCard"]["modelParameters"]["architectureFamily"] == "tiny"


def test_the_same_model_and_verdict_have_the_same_bill(made: Judged, document: Any) -> None:
    again = ml_bom(made.line.store, made.product, made.model, made.verdict)
    assert canonical_json(again) == canonical_json(document)
    other = ml_bom(made.line.store, made.product, made.model.model_copy(update={"synthetic_share": 0.5}), made.verdict)
    assert other["serialNumber"] != document["serialNumber"]
    assert "timestamp" not in document["metadata"]


def test_a_release_names_it_and_its_card_does_too(tmp_path: Path) -> None:
    line = SmallLine(tmp_path)
    release = line.release()
    store = line.parts.store
    assert release.bom is not None
    document = store.get_json(release.bom)
    assert faults(document) == []
    assert release.bom in store.get_bytes(release.card).decode()
    published = line.parts.home / "reports" / release.digest[7:23] / "bom.cdx.json"
    assert sha256_json(json.loads(published.read_text())) == release.bom
    data = next(each for each in document["components"] if each["name"] == "small-splits")
    assert data["data"][0]["governance"]["owners"] == [{"contact": {"name": "data-steward"}}]
    assert data["licenses"] == [{"expression": "CC0-1.0"}]


def test_a_release_of_an_earlier_edition_keeps_its_name(tmp_path: Path) -> None:
    """Without a bill of materials the manifest is what it was before there were any."""
    release = SmallLine(tmp_path).release().model_copy(update={"bom": None})
    assert "bom" not in release.payload()


def test_every_package_that_training_notes_is_known_here() -> None:
    source = ast.parse((ROOT / "pipelines/stages/train/environment.py").read_text())
    noted = next(
        ast.literal_eval(each.value)
        for each in source.body
        if isinstance(each, ast.Assign) and getattr(each.targets[0], "id", "") == "_PACKAGES"
    )
    assert set(bom.LIBRARIES) == set(noted)
