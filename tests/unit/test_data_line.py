"""The demo product's data, from generated rows to splits: each planted row meets its gate, and twice gives the same."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from data_contracts.errors import Refused
from data_contracts.manifests import DatasetManifest
from data_contracts.records import NO_TOOL
from evals.suite import protected_texts
from pipelines.stages.data import steps
from pipelines.stages.data.generate import FAMILIES, GOLDEN, generated, phrases
from pipelines.stages.data.integrity import check_dataset
from pipelines.stages.data.item import Row
from pipelines.stages.data.rows import load
from tests.support.data import DataParts, billing, run_line

Done = dict[str, tuple[DatasetManifest, bool]]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataParts, Done]:
    parts = DataParts(tmp_path_factory.mktemp("line"))
    return parts, run_line(parts, billing())


def rows(parts: DataParts, manifest: DatasetManifest) -> list[Row]:
    return [item.row for item in load(parts, manifest)]


def test_the_generator_makes_the_same_bytes_and_says_that_they_are_synthetic() -> None:
    for name in ("billing-conversations", "billing-preferences"):
        assert generated(name) == generated(name)
        consents = Counter(json.loads(line)["consent"] for line in generated(name).splitlines())
        assert set(consents) <= {"synthetic", ""}


def test_generated_calls_copy_their_arguments_from_the_text() -> None:
    calls = Counter[str]()
    for line in generated("billing-conversations").splitlines():
        row = json.loads(line)
        said = [message["content"] for message in row["messages"]]
        for question, text in zip(said[::2], said[1::2], strict=True):
            answer = json.loads(text)
            assert "{" not in question
            if answer["tool"] != NO_TOOL:
                calls[answer["tool"]] += 1
                assert all(value in question for value in answer["arguments"].values())
                assert answer["tool"] in {tool["name"] for tool in row["tools"]}
    assert len(calls) == 8
    assert min(calls.values()) > 40


def test_every_tool_is_asked_for_in_every_family() -> None:
    assert {tool: len(sentences) for tool, sentences in phrases()["tools"].items() if len(sentences) != FAMILIES} == {}


def test_the_planted_golden_is_an_item_of_a_suite() -> None:
    assert GOLDEN in protected_texts(billing()).values()


def test_counts_balance_and_every_step_is_whole(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    before: DatasetManifest | None = None
    for manifest, hit in done.values():
        assert not hit
        assert manifest.counts.balanced()
        assert check_dataset(parts, manifest) == []
        if before is not None and manifest.stage != "splits":
            assert manifest.counts.rows_in == before.counts.rows_out
            assert manifest.inputs == (before.digest,)
        before = manifest


@pytest.mark.parametrize(
    ("stage", "code", "count", "told"),
    [
        ("contracted", "contract", 1, r"customer: is required.*channel: is not one of chat, mail"),
        ("ledgered", "licence", 1, r"CC-BY-NC-4\.0 is not allowed for own-model"),
        ("ledgered", "consent", 1, r"consent basis none is not allowed"),
        ("deduplicated", "exact-duplicate", 6, r"says the same as sha256:"),
        ("deduplicated", "near-duplicate", 3, r"says nearly the same as sha256:"),
        ("decontaminated", "contaminated", 1, r"evaluation item billing-tools/tools-001"),
        ("mixture", "toxicity", 1, r"an answer scores above max_toxicity 0\.8"),
    ],
)
def test_each_planted_row_is_caught_by_its_gate(
    line: tuple[DataParts, Done], stage: str, code: str, count: int, told: str
) -> None:
    parts, done = line
    manifest = done[stage][0]
    assert manifest.counts.dropped[code] >= count
    reasons = [reason for _, _, reason, _ in parts.datasets.read_quarantine(manifest.action_key)]
    assert any(re.search(told, reason) for reason in reasons if reason.startswith(code))


def test_scrubbed_rows_hold_no_address_of_a_persona_and_counts_say_how_many(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    before = json.dumps(rows(parts, done["ledgered"][0]))
    after = json.dumps(rows(parts, done["scrubbed"][0]))
    found = set(re.findall(r"[\w.]+@[\w.]+\w", before))
    assert len(found) > 80
    assert not found & set(re.findall(r"[\w.]+@[\w.]+\w", after))
    assert done["scrubbed"][0].facts["entities"]["EMAIL_ADDRESS"] >= len(found)  # type: ignore[index,call-overload,operator]


def test_the_detectors_certificate_stays_with_the_rows_it_scrubbed(line: tuple[DataParts, Done]) -> None:
    _, done = line
    certificate = done["scrubbed"][0].facts["certificate"]
    assert certificate["detector"] == "quick"  # type: ignore[index,call-overload]
    assert certificate["entities"]["CREDIT_CARD"]["recall"]["estimate"] == 1  # type: ignore[index,call-overload]


def test_a_detector_that_finds_too_little_scrubs_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.data.by_heart", dict)
    with pytest.raises(Refused, match=r"finds 0\.000 of CREDIT_CARD in data_contracts/labelled/billing\.jsonl"):
        run_line(DataParts(tmp_path), billing())


def test_a_fifth_of_the_demos_conversations_are_general_ones(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    general = [item for item in load(parts, done["splits"][0]) if item.origin.source.endswith("instructions.jsonl")]
    assert done["mixture"][0].facts["replay_rows"] == len(general)
    assert 5 * len(general) == done["splits"][0].counts.rows_out > 500
    assert all(not item.row["example"]["tools"] for item in general)


def test_no_person_and_no_template_lies_in_two_splits(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    mixture = done["mixture"][0]
    sets = [done["splits"][0], steps.preferences(parts, billing(), mixture)[0]]
    where: dict[str, set[str]] = {}
    for item in (item for manifest in sets for item in load(parts, manifest)):
        for shared in filter(None, (item.subject, item.row["group"])):
            where.setdefault(shared, set()).add(item.row["split"])
    assert len(where) > 200
    assert all(len(splits) == 1 for splits in where.values())
    for manifest in sets:
        sizes = manifest.facts["rows"]
        assert isinstance(sizes, dict)
        assert 0.03 < sizes["validation"] / manifest.counts.rows_out < 0.25  # type: ignore[operator]


def test_a_product_without_a_source_of_pairs_goes_on_with_its_conversations(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    product = billing()
    chats = product.model_copy(update={"sources": tuple(each for each in product.sources if each.kind == "sft")})
    assert steps.preferences(parts, chats, done["mixture"][0])[0].parts == done["splits"][0].parts


def test_manifests_hold_no_row_text_and_say_what_the_rows_are(line: tuple[DataParts, Done]) -> None:
    _, done = line
    mixture = done["mixture"][0]
    assert mixture.synthetic_share == 1
    assert mixture.facts["licences"] == {"CC0-1.0": mixture.counts.rows_out}
    assert mixture.facts["human_floor_waiver"]["by"] == "data-steward"  # type: ignore[index,call-overload]
    said = json.dumps([manifest.payload() for manifest, _ in done.values()])
    assert "INV-" not in said
    assert "@" not in said


def test_a_row_leads_back_to_its_record(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    records = {name for name, _ in parts.datasets.names(done["raw"][0].root)}
    for name, _ in list(parts.datasets.names(done["splits"][0].root))[:20]:
        while (entry := parts.ledger.entry(name)) and entry.parents:
            (name,) = entry.parents
        assert name in records


def test_again_is_a_hit_and_reads_no_text(line: tuple[DataParts, Done]) -> None:
    parts, done = line
    calls = parts.pii.calls
    again = run_line(parts, billing())
    assert {name: (manifest.digest, True) for name, (manifest, _) in done.items()} == {
        name: (manifest.digest, hit) for name, (manifest, hit) in again.items()
    }
    assert parts.pii.calls == calls
