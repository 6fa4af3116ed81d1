"""The commercial policy stops what may not be used commercially; the research policy lets it by and the card tells."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.digests import sha256_bytes
from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from pipelines.recipes.product import Product
from pipelines.stages.data import steps
from pipelines.stages.release.card import render_card
from tests.support.data import DataParts, product_of, simple_rows, write_contract
from tests.support.line import SmallLine

UNCLEAR = {"model": "some model", "terms": "terms that nobody recorded", "training": "unclear"}
SETS: dict[str, dict[str, object]] = {
    "free": {"licence": "CC-BY-4.0"},
    "not-commercial": {"licence": "CC-BY-NC-SA-4.0"},
    "made-by-a-model": {"licence": "CC-BY-NC-4.0", "syntheticDepth": 1, "generatedBy": UNCLEAR},
    "nobody-said": {"licence": "NOASSERTION", "syntheticDepth": 1, "generatedBy": UNCLEAR},
}


def product(folder: Path, policy: str, *names: str) -> Product:
    sources: list[dict[str, object]] = []
    for number, name in enumerate(names):
        path = folder / f"{name}.jsonl"
        rows = simple_rows(40)[number * 5 : number * 5 + 5]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        contract = write_contract(folder / f"{name}.yaml", {"text": "string", "intent": "string"}, **SETS[name])
        sources.append({"url": str(path), "contract": contract, "mapping": {"user": "{text}", "assistant": "{intent}"}})
    return product_of(folder, *sources).model_copy(update={"data_policy": policy})


def ledgered(parts: Any, made: Product) -> DatasetManifest:
    raw, _ = steps.raw(parts, made)
    return steps.ledgered(parts, made, steps.contracted(parts, made, raw)[0])[0]


def test_the_commercial_policy_sets_aside_what_may_not_be_sold_with_the_reason(tmp_path: Path) -> None:
    parts = DataParts(tmp_path / "home")
    made = ledgered(parts, product(tmp_path, "commercial", *SETS))
    assert (made.counts.rows_in, made.counts.rows_out, made.counts.dropped) == (20, 5, {"licence": 15})
    reasons = {reason for _, _, reason, _ in parts.datasets.read_quarantine(made.action_key)}
    assert len(reasons) == 3
    assert any("licence CC-BY-NC-SA-4.0 is not allowed for own-model" in reason for reason in reasons)
    assert any("NOASSERTION" in reason and "some model" in reason for reason in reasons)

    decisions: Any = made.facts["decisions"]
    told = {Path(each["source"]).stem: each for each in decisions}
    assert {name: (each["verdict"], each["rows"]) for name, each in told.items()} == {
        name: ("allow" if name == "free" else "block", 5) for name in SETS
    }
    assert "terms that nobody recorded" in told["made-by-a-model"]["reason"]
    assert "word" not in json.dumps(decisions)


@pytest.mark.parametrize("name", [name for name in SETS if name != "free"])
def test_a_source_that_is_blocked_whole_stops_the_line_with_the_reason(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match=str(SETS[name]["licence"])):
        ledgered(DataParts(tmp_path / "home"), product(tmp_path, "commercial", name))


def test_the_research_policy_lets_it_through_and_the_card_tells_the_terms(tmp_path: Path) -> None:
    line = SmallLine(tmp_path / "line")
    learned = ledgered(line.parts, product(tmp_path, "research", *SETS))
    assert (learned.counts.rows_out, learned.counts.dropped) == (20, {})

    before = line.candidate()
    model = before.model_copy(update={"datasets": (learned.digest,)})
    bom = sha256_bytes(b"bom")
    card = render_card(line.parts.store, line.product, model, line.verdict(before), bom, [])
    assert "non-commercial: this model may not be used commercially" in card
    assert "share-alike" in card
    assert "made by some model, whose terms leave open whether training is allowed (terms that nobody recorded)" in card
    assert "license: other" in card

    plain = render_card(line.parts.store, line.product, before, line.verdict(before), bom, [])
    assert "non-commercial" not in plain
    assert "license: cc0-1.0" in plain
