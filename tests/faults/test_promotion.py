"""A promotion that dies or is refused at any step leaves the champion, or is finished by doing it again."""

import json

import pytest

from data_contracts.chain import live_releases
from data_contracts.digests import hex_of, sha256_bytes
from data_contracts.errors import Refused, Tampered
from data_contracts.manifests import ReleaseManifest
from pipelines.stages.release import promotion
from pipelines.stages.release.candidate import register
from pipelines.stages.release.rollback import rollback
from pipelines.stages.release.verify import verify
from pipelines.stages.serve import routes
from pipelines.stages.serve.routes import read_routes
from tests.support.crash import PowerLoss, fails
from tests.support.line import REPORT, SmallLine
from tests.support.pieces import NAME

Place = tuple[SmallLine, ReleaseManifest]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Place:
    line = SmallLine(tmp_path_factory.mktemp("whole"))
    release = line.release()
    line.approve(release)
    return line, release


@pytest.fixture
def place(whole, tmp_path) -> Place:
    line, release = whole
    return line.copied(tmp_path / "copy"), release


def champion(line: SmallLine) -> str | None:
    return live_releases(line.parts.log.records()).get((NAME, "production"))


def whole_and_live(line: SmallLine, release: ReleaseManifest) -> None:
    assert champion(line) == release.digest == line.registry.alias(NAME, "champion")
    route = read_routes(line.parts.home).of(NAME)
    assert route is not None
    assert (route.champion, route.challenger) == (release.digest, None)
    assert [link for link in verify(line.parts, release.digest, line.parts.signatures) if link.status != "ok"] == []
    assert [r.event for r in line.parts.log.records()].count("promotion.recorded") == 1


STEPS = [
    (lambda line: line.server, "ensure_running", 1),
    (lambda line: line.server, "ensure_loaded", 1),
    (lambda line: routes, "_write", 1),
    (lambda line: line.parts.store, "put_manifest", 1),
    (lambda line: line.parts.log, "append", 1),
    (lambda line: line.parts.log, "append", 2),
    (lambda line: line.server, "pin", 1),
    (lambda line: line.registry, "set_alias", 1),
    (lambda line: routes, "_write", 3),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name", "at"), STEPS, ids=[f"{name}-{at}" for _, name, at in STEPS])
def test_a_crash_at_any_step_is_finished_by_doing_it_again(place, monkeypatch, owner, name, at, after):
    line, release = place
    with monkeypatch.context() as crash:
        fails(crash, owner(line), name, at, after)
        with pytest.raises(PowerLoss):
            line.promote(release)
    line.promote(release)
    whole_and_live(line, release)


def test_promoting_what_is_live_makes_the_projections_again_and_chains_nothing(place):
    line, release = place
    record = line.promote(release)
    line.registry.aliases.clear()
    routes.routes_file(line.parts.home).unlink()
    assert line.promote(release) == record
    assert line.registry.alias(NAME, "champion") == release.digest
    assert read_routes(line.parts.home).of(NAME).champion == release.digest


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda release: SmallLine.ask("not JSON"), "0 of 4 answers are valid JSON"),
        (lambda release: SmallLine.ask(instead=sha256_bytes(b"other")), "answered in its place"),
    ],
)
def test_a_failed_canary_is_recorded_and_leaves_the_champion(place, ask, says):
    line, release = place
    with pytest.raises(Refused, match=f"the canary failed: .*{says}"):
        promotion.promote(line.parts, line.product, release.digest, ask(release))
    last = line.parts.log.records()[-1]
    assert (last.event, last.body["outcome"]) == ("canary.recorded", "fail")
    assert champion(line) is None
    assert read_routes(line.parts.home).of(NAME).challenger is None
    line.promote(release)
    assert champion(line) == release.digest


def test_the_champion_that_moves_during_the_canary_stops_it(place):
    line, release = place
    other = line.release(seed=1)
    line.approve(other)
    answer = line.ask()

    def ask(product, digest, prompt):
        if champion(line) is None:
            line.promote(other)
        return answer(product, digest, prompt)

    with pytest.raises(Refused, match="champion moved"):
        promotion.promote(line.parts, line.product, release.digest, ask, [next(iter_prompts(line))])
    assert champion(line) == other.digest


def iter_prompts(line: SmallLine):
    from pipelines.stages.release.canary import canary_prompts

    return iter(canary_prompts(line.product))


def test_no_approval_no_promotion(place):
    line, _ = place
    other = line.release(seed=1)
    with pytest.raises(Refused, match=r"0 of 1 signatures .*assay approve"):
        line.promote(other)
    assert line.server.names == []


def test_one_byte_of_the_adapter_changed_after_approval(place):
    line, release = place
    path = line.sealed(release.weights) / "adapter_model.safetensors.age"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Tampered, match=r"adapter_model.safetensors was changed"):
        line.promote(release)
    assert champion(line) is None
    assert line.server.names == []


def test_an_adapter_trained_on_another_base_is_refused_naming_both(place):
    line, _ = place
    other = sha256_bytes(b"other base")
    model = line.candidate(seed=5, base=other)
    release, _ = register(line.parts, line.product, model, line.verdict(model), REPORT)
    line.approve(release)
    with pytest.raises(Refused, match=f"was trained on base {other}, the release has {line.base.digest}"):
        line.promote(release)


def test_a_changed_verdict_result_stops_the_promotion(place):
    line, release = place
    verdict = line.parts.store.get_json(release.verdict)
    digest = next(iter(verdict["results"].values()))
    path = line.folder / "home" / "store" / "blobs" / hex_of(digest)[:2] / hex_of(digest)
    path.write_bytes(path.read_bytes().replace(b'"exact":1', b'"exact":0', 1))
    with pytest.raises(Tampered, match="was changed"):
        line.promote(release)


def test_rollbacks_go_back_past_what_was_rolled_back_and_end_at_the_base(place):
    line, first = place
    line.promote(first)
    models = [line.model_of(first)]
    second = line.live(seed=1, champion=models[0])
    assert second.displaced_champion == first.digest

    record = rollback(line.parts, line.product, "worse", actor="test")
    assert (record.body["release"], record.body["from"]) == (first.digest, second.digest)
    assert champion(line) == first.digest == line.registry.alias(NAME, "champion")

    line.explain_rollback()
    third = line.live(seed=2, champion=models[0])
    assert rollback(line.parts, line.product, "worse", actor="test").body["release"] == first.digest
    assert rollback(line.parts, line.product, "worse", actor="test").body["release"] is None
    assert champion(line) is None
    assert line.registry.alias(NAME, "champion") is None
    with pytest.raises(Refused, match="nothing to roll back"):
        rollback(line.parts, line.product, "worse", actor="test")
    for release in (first, second, third):
        assert {link.status for link in verify(line.parts, release.digest, line.parts.signatures)} == {"ok"}


def test_no_row_text_reaches_the_audit_log_or_the_registered_files(place):
    line, release = place
    line.promote(release)
    written = (line.folder / "home" / "chain" / "log.jsonl").read_text()
    reports = [path.read_text() for path in (line.folder / "home" / "reports").rglob("*.*")]
    texts = [item.row["text"] for item in line.parts.datasets.read(line.raw.root)]
    assert reports
    assert not [text for text in texts if any(json.dumps(text) in each or text in each for each in [written, *reports])]
