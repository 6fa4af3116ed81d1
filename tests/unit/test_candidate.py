"""Registering a candidate: only what the gate promotes, once, with a card that says what it is."""

import pytest
import yaml

from data_contracts.errors import Refused
from data_contracts.manifests import ModelManifest, ReleaseManifest
from pipelines.stages.release.audit import check_log
from pipelines.stages.release.candidate import register
from pipelines.stages.release.registered import awaiting_approval, find_release, latest_registered
from pipelines.stages.release.rollback import rollback
from tests.support.line import REPORT, SmallLine
from tests.support.pieces import NAME
from tests.support.registry import FakeRegistry

FILES = {"adapter", "manifests", "report.html", "report.md", "README.md", "card-diff.md", "bom.cdx.json"}
FILES |= {"policy.json", "serving.json", "chat_template.jinja", "provenance.intoto.json", "model.sig"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[SmallLine, ModelManifest]:
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    return line, line.candidate()


@pytest.fixture
def place(whole, tmp_path) -> tuple[SmallLine, ModelManifest]:
    line, model = whole
    return line.copied(tmp_path / "copy"), model


def events(line: SmallLine) -> list[str]:
    return [record.event for record in check_log(line.parts.log, line.parts.signatures)]


def test_registered_once_with_everything_a_reviewer_approves(place):
    line, model = place
    verdict = line.verdict(model)
    release, hit = register(line.parts, line.product, model, verdict, REPORT)
    assert not hit
    assert register(line.parts, line.product, model, verdict, REPORT) == (release, True)
    assert events(line).count("release.registered") == 1
    assert (release.model, release.weights, release.verdict) == (model.digest, model.weights, verdict.digest)
    assert release.displaced_champion is None
    assert release.log_head.sequence == 0
    assert line.registry.versions == {(NAME, release.digest): FILES}
    assert latest_registered(line.parts, NAME) == release.digest
    assert awaiting_approval(line.parts) == [release.digest]
    assert find_release(line.parts, release.digest[7:19]) == release.digest


def test_a_crash_in_the_registry_or_the_log_is_made_up_for(place, monkeypatch):
    line, model = place
    verdict = line.verdict(model)
    for owner, name in ((FakeRegistry, "register"), (type(line.parts.log), "append")):
        with monkeypatch.context() as crash:
            crash.setattr(owner, name, lambda *args, **named: (_ for _ in ()).throw(OSError("power loss")))
            with pytest.raises(OSError, match="power loss"):
                register(line.parts, line.product, model, verdict, REPORT)
        assert latest_registered(line.parts, NAME) is None
    release, _ = register(line.parts, line.product, model, verdict, REPORT)
    assert latest_registered(line.parts, NAME) == release.digest
    assert len(line.registry.versions) == 1


def test_a_verdict_that_does_not_promote_this_model_is_refused(place):
    line, model = place
    other = line.candidate(seed=1)
    with pytest.raises(Refused, match=r"the gate's verdict is inconclusive, not promote: cannot tell: better"):
        register(line.parts, line.product, model, line.verdict(model, score=0.0), REPORT)
    with pytest.raises(Refused, match=f"is for model {other.digest}, not for {model.digest}"):
        register(line.parts, line.product, model, line.verdict(other), REPORT)
    assert "release.registered" not in events(line)


def test_a_verdict_without_the_champion_that_is_live_is_refused(place):
    line, _ = place
    first = line.live()
    model = line.candidate(seed=1)
    with pytest.raises(Refused, match="no results of champion"):
        register(line.parts, line.product, model, line.verdict(model), REPORT)
    with pytest.raises(Refused, match="small-suite/champion is of"):
        register(line.parts, line.product, model, line.verdict(model, champion=model), REPORT)
    release, _ = register(line.parts, line.product, model, line.verdict(model, line.model_of(first)), REPORT)
    assert release.displaced_champion == first.digest


def test_what_is_live_is_not_registered_again_and_after_a_rollback_it_is_a_new_release(place):
    line, model = place
    first = line.live()
    assert register(line.parts, line.product, model, line.verdict(model, model), REPORT) == (first, True)
    rollback(line.parts, line.product, "test", actor="test")
    again, hit = register(line.parts, line.product, model, line.verdict(model), REPORT)
    assert not hit
    assert again.digest != first.digest


def test_the_live_model_under_new_terms_is_a_new_release_and_no_rival_of_itself(place):
    line, model = place
    first = line.live()
    stricter = line.product.model_copy(
        update={"approval": line.product.approval.model_copy(update={"expires_hours": 1})}
    )
    again, hit = register(line.parts, stricter, model, line.verdict(model), REPORT)
    assert not hit
    assert (again.model, again.displaced_champion) == (first.model, first.digest)


def test_the_card_names_base_data_origin_training_and_gate(place):
    line, model = place
    release, _ = register(line.parts, line.product, model, line.verdict(model), REPORT)
    card = line.parts.store.get_bytes(release.card).decode()
    head, body = card.removeprefix("---\n").split("---\n", 1)
    metadata = yaml.safe_load(head)
    assert [each["name"] for each in metadata.pop("model-index")] == [line.product.name]
    assert metadata == {
        "base_model": "nothing",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "license": "cc0-1.0",
        "pipeline_tag": "text-generation",
        "tags": ["assay", "lora", "synthetic-data"],
    }
    assert "**Synthetic data:** 100% of the training rows were generated" in body
    for expected in (model.base, model.weights, line.raw.digest, line.splits.digest, "CC0-1.0", "| loss | 0.25 |"):
        assert expected in body
    assert "Gate: **promote**" in body


def test_the_card_diff_is_against_the_champions_card(place):
    line, _ = place
    first = line.live()
    model = line.candidate(seed=1)
    release: ReleaseManifest = register(
        line.parts, line.product, model, line.verdict(model, line.model_of(first)), REPORT
    )[0]
    diff = line.parts.store.get_bytes(release.card_diff).decode()
    assert f"-- weights: `{first.weights}`" in diff
    assert f"+- weights: `{model.weights}`" in diff
    assert "-## Training Details" not in diff
