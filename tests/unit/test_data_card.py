"""What a data set's card tells a person and a program, and what it keeps to itself."""

import json
import re
from pathlib import Path

import pytest
import yaml

from data_contracts.errors import Missing
from data_contracts.manifests import DatasetManifest
from pipelines.stages.release.data_card import find_set, write_data_card
from tests.support.data import DataParts, product_of, run_line, simple_rows, write_contract
from tests.support.line import SmallLine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataParts, DatasetManifest]:
    folder = tmp_path_factory.mktemp("card")
    rows = [
        *simple_rows(40),
        simple_rows(1)[0],
        {"text": "bitte mail me at someone@example.org please", "intent": "rare $1"},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    contract = write_contract(folder / "c.yaml", {"text": "string", "intent": "string"}, region="DE")
    source = {"url": str(folder / "rows.jsonl"), "contract": contract}
    product = product_of(folder, source | {"mapping": {"user": "{text}", "assistant": "{intent}"}})
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy | {"max_toxicity": 0.8}))
    parts = DataParts(folder / "home")
    return parts, run_line(parts, product)["splits"][0]


def test_the_page_tells_counts_reasons_terms_and_decisions(
    made: tuple[DataParts, DatasetManifest], tmp_path: Path
) -> None:
    parts, splits = made
    assert write_data_card(parts, splits.digest, tmp_path / "out") == tmp_path / "out" / "card.html"
    page = (tmp_path / "out" / "card.md").read_text()
    for told in (
        *("EMAIL_ADDRESS 1", "collected in DE", "attribution", "gold 41", "rows: 41", "exact-duplicate 1"),
        *("languages of the mixture: de 1, en 40", "copies set aside: exact 1, in clusters: 1 of 2"),
        *("evaluation item they hold: 0", "generated: 0%, depth 0 at most"),
    ):
        assert told in page, told
    assert [page.index(f"| {stage} |") for stage in ("raw", "contracted", "scrubbed", "splits")] == sorted(
        page.index(f"| {stage} |") for stage in ("raw", "contracted", "scrubbed", "splits")
    )
    assert "| allow |" in page
    assert (
        "above a score of 0.8, from 0 to 1, by the classifier `rude`.\n\n**Known biases.** It knows one word." in page
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "card.html",
        "card.md",
        "croissant.json",
        "labels.svg",
        "lengths.svg",
    }


def test_the_card_names_labels_that_several_share_and_no_other_text(
    made: tuple[DataParts, DatasetManifest], tmp_path: Path
) -> None:
    parts, splits = made
    write_data_card(parts, splits.digest, tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "intent 3" in (tmp_path / "labels.svg").read_text()
    assert "rare" not in text
    assert "word3" not in text
    assert "someone@" not in text


def test_the_page_is_one_file_with_its_plots_and_no_markup_of_a_source(
    made: tuple[DataParts, DatasetManifest], tmp_path: Path
) -> None:
    parts, splits = made
    origins = [{**origin, "source": "<script>x</script>"} for origin in splits.facts["origins"]]  # type: ignore[union-attr,dict-item]
    other = splits.model_copy(update={"facts": splits.facts | {"origins": origins}})
    page = write_data_card(parts, parts.store.put_manifest(other), tmp_path).read_text()
    assert page.count("<svg") == 2
    assert "<img" not in page
    assert "<table>" in page
    assert "intent 3" in page
    assert "<script>" not in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page.replace("xlink:href", "href"))


def test_croissant_names_the_licences_and_every_field(made: tuple[DataParts, DatasetManifest], tmp_path: Path) -> None:
    parts, splits = made
    write_data_card(parts, splits.digest, tmp_path)
    told = json.loads((tmp_path / "croissant.json").read_text())
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert told["license"] == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert told["identifier"] == splits.digest
    (records,) = told["recordSet"]
    assert [field["name"] for field in records["field"]] == ["name", "subject", "origin", "row"]
    assert (parts.home / told["distribution"][0]["includes"]).parent.is_dir()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rdflib's own
def test_the_validator_of_croissant_finds_no_fault(made: tuple[DataParts, DatasetManifest], tmp_path: Path) -> None:
    import mlcroissant

    parts, splits = made
    write_data_card(parts, splits.digest, tmp_path)
    read = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert read.metadata.ctx.issues.errors == set()
    assert not any("@context" in warning for warning in read.metadata.ctx.issues.warnings)
    assert [each.name for each in read.metadata.record_sets] == ["rows"]
    broken = json.loads((tmp_path / "croissant.json").read_text())
    broken["recordSet"][0]["field"][0]["source"]["fileSet"]["@id"] = "elsewhere"
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=broken)


def test_a_product_stands_for_what_it_last_trained_on(tmp_path: Path) -> None:
    line = SmallLine(tmp_path)
    with pytest.raises(Missing, match="small is neither"):
        find_set(line.parts, "small")
    line.candidate()
    assert find_set(line.parts, "small") == line.splits.digest
    assert find_set(line.parts, line.splits.digest[:20]) == line.splits.digest
    with pytest.raises(Missing, match="neither"):
        find_set(line.parts, "sha256:ffff")
