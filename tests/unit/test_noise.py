"""The noise floor that the line measures: baselines are asked again with the policy's seeds, the gate holds gains to
it, and whoever has the stored results comes to the same floor."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_contracts.digests import Digest, hex_of, sha256_bytes
from data_contracts.errors import Refused
from data_contracts.verdicts import EvalResult, LayerResults
from evals.decoding import SEED, Decoding
from evals.gate import evaluate_policy
from evals.noise import stored_reruns
from evals.policy import GatePolicy, load_policy
from evals.question import QuestionItem
from evals.run import NO_TEMPLATE
from pipelines.stages.release.candidate import register
from pipelines.stages.release.evidence import check_verdict
from pipelines.stages.release.tenant_archive import archive
from pipelines.stages.release.verify import verify
from resources.artifact_store import FsspecArtifactStore
from resources.tenant_keys import TenantKeys
from tests.support.line import REPORT
from tests.support.noise import ITEMS, NAME, SEEDS, TEMPERATURE, NoisyLine, reply
from tests.support.teacher import TeacherServer, teaching
from tests.unit.test_gate import BETTER, FLOOR, policy, result, share

BASE = f"{NAME}/base"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


@pytest.fixture
def server() -> Iterator[TeacherServer]:
    with teaching(reply) as server:
        yield server


@pytest.fixture
def noisy(server: TeacherServer, tmp_path: Path) -> NoisyLine:
    return NoisyLine(tmp_path / "line", server)


def test_the_base_is_asked_again_with_every_seed_and_the_floor_is_what_its_means_span(noisy, server):
    layer, hit = noisy.evaluated()
    assert not hit
    assert len(server.bodies) == ITEMS * (2 + len(SEEDS))
    assert layer.reruns.keys() == {BASE}

    means = [noisy.mean(digest) for digest in (layer.results[BASE], *layer.reruns[BASE])]
    assert len(set(means)) == 3
    verdict = noisy.decided(layer)
    (better,) = verdict.criteria
    assert better.noise == pytest.approx(max(means) - min(means))
    assert verdict.reruns == layer.reruns
    assert f"must lie above +{better.noise:.3f} (the noise floor)" in better.reason


def test_nothing_is_asked_twice_and_another_seed_costs_its_own_answers(noisy, server):
    layer, _ = noisy.evaluated()
    asked = len(server.bodies)
    assert noisy.evaluated() == (layer, True)
    assert len(server.bodies) == asked
    noisy.policy({"seeds": [*SEEDS, 13], "temperature": TEMPERATURE})
    more, hit = noisy.evaluated()
    assert (hit, len(server.bodies)) == (False, asked + ITEMS)
    assert more.reruns[BASE][:2] == layer.reruns[BASE]


def test_a_champion_is_asked_again_where_a_criterion_is_against_it(noisy):
    champion = noisy.small.candidate(1)
    layer, _ = noisy.evaluated(champion)
    assert layer.reruns.keys() == {BASE, f"{NAME}/champion"}
    for line in noisy.decided(layer).criteria:
        name = f"{NAME}/{line.baseline}"
        means = [noisy.mean(digest) for digest in (layer.results[name], *layer.reruns[name])]
        assert line.noise == pytest.approx(max(means) - min(means))


def test_a_policy_without_seeds_asks_nothing_more_and_has_no_floor(noisy, server):
    noisy.policy(noise={})
    layer, _ = noisy.evaluated()
    assert len(server.bodies) == ITEMS * 2
    assert layer.payload().keys() == {"kind", "product", "model", "layer", "results"}
    verdict = noisy.decided(layer)
    assert [line.noise for line in verdict.criteria] == [None]
    assert "reruns" not in verdict.payload()


def test_a_gain_within_the_floor_is_no_gain():
    results = {"s/base": result(share(20)), "s/candidate": result(share(40))}
    asking = GatePolicy.model_validate(policy(BETTER).payload() | {"noise": {"seeds": [1], "temperature": 1}})
    calm, wild = [{"s/base": result(share(22))}], [{"s/base": result(share(44))}]
    assert evaluate_policy(asking, results, calm)[1] == "promote"
    (line,), decision, _ = evaluate_policy(asking, results, wild)
    assert (line.outcome, decision, line.noise) == ("inconclusive", "inconclusive", pytest.approx(24 / 60))


def test_re_runs_that_are_asked_for_and_missing_refuse_a_verdict():
    results = {"s/base": result(share(6)), "s/candidate": result(share(50))}
    asking = GatePolicy.model_validate(policy(BETTER).payload() | {"noise": {"seeds": [1, 2], "temperature": 1}})
    for given in ([], [{"s/base": result(share(6))}]):
        with pytest.raises(Refused, match=f"asks for 2 re-runs of the baseline, and {len(given)} are given"):
            evaluate_policy(asking, results, given)
    with pytest.raises(Refused, match="a re-run of its baseline is of other items"):
        evaluate_policy(asking, results, [{"s/base": result(share(6)[:-1])}] * 2)


# What may stand as a re-run.


def test_a_layer_from_before_the_policy_asked_for_seeds_is_refused(noisy):
    noisy.policy(noise={})
    layer, _ = noisy.evaluated()
    noisy.policy()
    with pytest.raises(Refused, match=f"asks for re-runs of {BASE} with 2 seeds, and 0 are there: evaluate again"):
        noisy.decided(layer)


def changed(noisy: NoisyLine, layer: LayerResults, **fields: Any) -> Digest:
    store = noisy.small.parts.store
    return store.put_manifest(store.get_manifest(layer.reruns[BASE][1], EvalResult).model_copy(update=fields))


def test_what_is_not_the_baseline_with_that_seed_is_no_re_run(noisy):
    layer, _ = noisy.evaluated()
    first = layer.reruns[BASE][0]
    for forged, said in (
        (first, r"was decoded with seed 11 at 0\.7"),
        (layer.results[BASE], r"was decoded with seed 7 at 0,"),
        (layer.results[f"{NAME}/candidate"], "another artifact"),
        (changed(noisy, layer, suite_digest=layer.model), "another suite_digest"),
        (changed(noisy, layer, template=layer.model), "another template"),
        (changed(noisy, layer, decoding=sha256_bytes(b"?")), "does not tell how it was decoded"),
    ):
        with pytest.raises(Refused, match=f"the re-run of {BASE} with seed 12 .*{said}"):
            noisy.decided(layer.model_copy(update={"reruns": {BASE: (first, forged)}}))


def test_another_temperature_than_the_policys_is_refused(noisy):
    layer, _ = noisy.evaluated()
    noisy.policy({"seeds": [*SEEDS], "temperature": 0.2})
    with pytest.raises(Refused, match=r"seed 11 at temperature 0\.2 was decoded with seed 11 at 0\.7"):
        noisy.decided(layer)


def test_likelihoods_have_a_floor_of_nothing(tmp_path):
    """A probe is the same result whatever the seed: it is its own re-run."""
    store = FsspecArtifactStore(str(tmp_path / "store"), tmp_path / "cache", TenantKeys(tmp_path / "keys"))
    asking = GatePolicy.model_validate(policy(BETTER).payload() | {"noise": {"seeds": [1], "temperature": 1}})
    probe, other = (result(share(6), template=NO_TEMPLATE, decoding=sha256_bytes(task)) for task in (b"1", b"2"))
    results = {"s/base": probe, "s/candidate": result(share(50), template=NO_TEMPLATE)}
    reruns = stored_reruns(store, asking, results, {"s/base": (store.put_manifest(probe),)})
    assert [line.noise for line in evaluate_policy(asking, results, reruns)[0]] == [0]
    with pytest.raises(Refused, match="by another task of lm-eval"):
        stored_reruns(store, asking, results, {"s/base": (store.put_manifest(other),)})


# A release that stands on re-runs.


def blob(noisy: NoisyLine, digest: Digest) -> Path:
    name = hex_of(digest)
    return noisy.small.folder / "home" / "store" / "blobs" / name[:2] / name


def told(noisy: NoisyLine, release: Digest) -> tuple[str, str]:
    parts = noisy.small.parts
    (link,) = [each for each in verify(parts, release, parts.signatures) if each.name.startswith("verdict")]
    return link.status, link.detail


def test_the_chain_comes_to_the_same_floor_and_misses_a_re_run_that_was_changed_or_taken(noisy):
    parts = noisy.small.parts
    layer, _ = noisy.evaluated()
    verdict = noisy.decided(layer)
    release, _ = register(parts, noisy.small.product, noisy.model, verdict, REPORT)
    assert told(noisy, release.digest) == ("ok", "promote comes out of 2 stored results and 2 re-runs again (1 pass)")

    bare = parts.store.put_manifest(verdict.model_copy(update={"reruns": {}}))
    with pytest.raises(Refused, match=f"re-runs of {BASE} with 2 seeds, and 0 are there"):
        check_verdict(parts.store, release.model_copy(update={"verdict": bare}))
    calmer = changed(noisy, layer, items=parts.store.get_manifest(layer.results[BASE], EvalResult).items)
    forged = verdict.model_copy(update={"reruns": {BASE: (calmer, layer.reruns[BASE][1])}})
    with pytest.raises(Refused, match=r"the re-run of facts/base with seed 11 .* decoded with seed 12"):
        check_verdict(parts.store, release.model_copy(update={"verdict": parts.store.put_manifest(forged)}))
    forged = verdict.model_copy(update={"reruns": {BASE: (layer.reruns[BASE][0], calmer)}})
    with pytest.raises(Refused, match="does not come out of its results again"):
        check_verdict(parts.store, release.model_copy(update={"verdict": parts.store.put_manifest(forged)}))

    stored = blob(noisy, layer.reruns[BASE][1])
    whole = stored.read_bytes()
    stored.write_bytes(whole.replace(b'"contains":0', b'"contains":1', 1))
    assert told(noisy, release.digest)[0] == "broken"
    stored.unlink()
    assert told(noisy, release.digest)[0] == "broken"
    stored.write_bytes(whole)
    assert told(noisy, release.digest)[0] == "ok"


def test_a_tenants_archive_holds_the_re_runs(noisy, tmp_path):
    parts = noisy.small.parts
    layer, _ = noisy.evaluated()
    register(parts, noisy.small.product, noisy.model, noisy.decided(layer), REPORT)
    held = archive(parts, noisy.small.product.tenant, (tmp_path / "tenant").open("wb")).documents
    again = [parts.store.get_manifest(digest, EvalResult) for digest in layer.reruns[BASE]]
    assert {each for result in again for each in (result.digest, result.decoding)} <= set(held)
    assert not {result.samples for result in again} & set(held)


# Policies and questions.


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ({"seeds": [], "temperature": 0.7}, "at least 1 item"),
        ({"seeds": [1, 1], "temperature": 0.7}, "give each once"),
        ({"seeds": [-1], "temperature": 0.7}, "greater than or equal to 0"),
        ({"seeds": [1], "temperature": 0}, "greater than 0"),
        ({"seeds": [1]}, "Field required"),
    ],
)
def test_seeds_that_measure_nothing_are_an_error(noise, said):
    with pytest.raises(ValidationError, match=said):
        GatePolicy.model_validate(policy(BETTER).payload() | {"noise": noise})


def test_seeds_without_a_baseline_are_an_error():
    with pytest.raises(ValidationError, match="no criterion compares with a baseline"):
        GatePolicy.model_validate(policy(FLOOR).payload() | {"noise": {"seeds": [1], "temperature": 1}})


def test_a_policy_that_asks_for_no_seeds_keeps_its_name(noisy):
    noisy.policy(noise={})
    assert "noise" not in load_policy(noisy.small.folder / "gate.yaml").payload()


def test_sampled_items_draw_their_own_numbers_and_greedy_ones_none():
    one, two = (QuestionItem(id=f"i{n}", cluster="c", text="?", answers=("a",)) for n in range(2))
    plain = Decoding(max_tokens=8)
    assert {plain.question("", item)["seed"] for item in (one, two)} == {SEED}
    sampled = [plain.sampled(0.5, seed).question("", item) for seed in SEEDS for item in (one, two)]
    assert len({body["seed"] for body in sampled}) == 4
    assert {body["temperature"] for body in sampled} == {0.5}
    assert plain.sampled(0.5, 11).question("", one) == sampled[0]
    assert plain.sampled(0.5, 11).greedy() == plain
