"""The gate passes only what the evidence shows, and refuses where evidence is missing."""

from pathlib import Path
from typing import Any

import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import BadInput, Refused
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import EvalResult, ItemScore, LayerResults
from evals.extraction import METRICS
from evals.gate import decide, evaluate_policy
from evals.policy import CANARIES, Criterion, GatePolicy, load_policy
from evals.run import NO_TEMPLATE
from evals.suite import load_suites
from pipelines.recipes.product import PRODUCTS, Product, load_product, product_names
from resources.artifact_store import FsspecArtifactStore
from resources.tenant_keys import TenantKeys
from tests.support.canaries import canary_results, learned_from

ANY = sha256_bytes(b"any")
BETTER = Criterion(name="better", kind="superiority", suite="s", metric="m", against="base", margin=0.0)
NO_WORSE = Criterion(name="no-worse", kind="non-inferiority", suite="s", metric="m", against="base", margin=0.1)
FLOOR = Criterion(name="floor", kind="floor", suite="s", metric="m", margin=0.8)
CEILING = Criterion(name="ceiling", kind="ceiling", suite="s", metric="m", margin=0.2)


def policy(*criteria: Criterion) -> GatePolicy:
    return GatePolicy(name="p", confidence=0.95, resamples=2000, seed=1, criteria=criteria)


def result(values: list[float], artifact: Digest = ANY, metric: str = "m", **more: Any) -> EvalResult:
    items = tuple(ItemScore(item=f"i{n:03d}", cluster=f"c{n % 20}", scores={metric: v}) for n, v in enumerate(values))
    given = {"product": "p", "suite": "s", "suite_digest": ANY, "template": ANY, "decoding": ANY, "engine": "none"}
    return EvalResult(**(given | more), artifact=artifact, items=items, samples=None, action_key=ANY)


def share(ones: int, of: int = 60) -> list[float]:
    return [float((n * 7) % of < ones) for n in range(of)]


def judged(criterion: Criterion, base: list[float], candidate: list[float]) -> tuple[str, str]:
    results = {"s/base": result(base), "s/candidate": result(candidate)}
    (line,), decision, _ = evaluate_policy(policy(criterion), results)
    return line.outcome, decision


@pytest.mark.parametrize(
    ("criterion", "base", "candidate", "outcome", "decision"),
    [
        (BETTER, 6, 50, "pass", "promote"),
        (BETTER, 30, 32, "inconclusive", "inconclusive"),
        (BETTER, 50, 6, "fail", "hold"),
        (NO_WORSE, 50, 60, "pass", "promote"),
        (NO_WORSE, 60, 20, "fail", "hold"),
        (FLOOR, 0, 60, "pass", "promote"),
        (FLOOR, 0, 48, "inconclusive", "inconclusive"),
        (FLOOR, 0, 20, "fail", "hold"),
        (CEILING, 0, 0, "pass", "promote"),
        (CEILING, 60, 10, "inconclusive", "inconclusive"),
        (CEILING, 0, 40, "fail", "hold"),
    ],
)
def test_outcomes(criterion, base, candidate, outcome, decision):
    assert judged(criterion, share(base), share(candidate)) == (outcome, decision)


def test_a_probe_where_the_base_guesses_decides_nothing():
    probe = NO_WORSE.model_copy(update={"chance": 0.25})
    assert judged(probe, share(17), share(60))[0] == "inconclusive"
    assert judged(probe, share(50), share(60))[0] == "pass"


def test_probes_that_decide_nothing_stay_in_the_family():
    """That the base guesses on nineteen others makes no failure easier."""
    lost = NO_WORSE.model_copy(update={"name": "lost"})
    others = [NO_WORSE.model_copy(update={"name": f"p{n}", "suite": "guessed", "chance": 0.25}) for n in range(19)]
    results = {"s/base": result(share(40)), "s/candidate": result(share(16))}
    results |= {"guessed/base": result(share(15)), "guessed/candidate": result(share(15))}
    (alone,), _, _ = evaluate_policy(policy(lost), results)
    found, _, _ = evaluate_policy(policy(lost, *others), results)
    assert {line.outcome for line in found[1:]} == {"inconclusive"}
    assert found[0].p_hold == pytest.approx(20 * alone.p_hold)


def test_one_failure_holds_back_whatever_else_passes():
    results = {"s/base": result(share(50)), "s/candidate": result(share(60))}
    lines, decision, reason = evaluate_policy(policy(NO_WORSE, BETTER.model_copy(update={"margin": 0.9})), results)
    assert [line.outcome for line in lines] == ["pass", "fail"]
    assert (decision, reason) == ("hold", "failed: better")


def test_the_champion_counts_when_there_is_one():
    against = NO_WORSE.model_copy(update={"name": "rival", "against": "champion"})
    results = {"s/base": result(share(6)), "s/candidate": result(share(30))}
    lines, decision, reason = evaluate_policy(policy(BETTER, against), results)
    assert [line.name for line in lines] == ["better"]
    assert decision == "promote"
    assert "no other champion" in reason
    lines, decision, _ = evaluate_policy(policy(BETTER, against), results | {"s/champion": result(share(60))})
    assert [line.outcome for line in lines] == ["pass", "fail"]
    assert decision == "hold"


def test_the_same_evidence_gives_the_same_verdict():
    results = {"s/base": result(share(20)), "s/candidate": result(share(33))}
    assert evaluate_policy(policy(BETTER), results) == evaluate_policy(policy(BETTER), results)


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ({"s/candidate": result(share(60))}, "no results of base"),
        ({"s/base": result(share(60))}, "no results of candidate"),
        ({"s/base": result(share(6)), "s/candidate": result(share(60), metric="other")}, "no metric m"),
        ({"s/base": result(share(6)), "s/candidate": result(share(6)[:-1])}, "one side only"),
        ({"s/base": result(share(6)), "s/candidate": result([2.0] * 60)}, "not in \\[0, 1\\]"),
    ],
)
def test_what_cannot_be_computed_is_refused(results, reason):
    with pytest.raises(Refused, match=reason):
        evaluate_policy(policy(BETTER), results)


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(Refused, match="not in"):
        evaluate_policy(policy(FLOOR), {"s/candidate": result([float("nan")] * 60)})


def test_a_policy_must_decide_something(tmp_path):
    file = tmp_path / "policy.yaml"
    file.write_text("name: empty\nconfidence: 0.95\nresamples: 1000\nseed: 1\ncriteria: []\n")
    with pytest.raises(BadInput, match="criteria"):
        load_policy(file)
    file.write_text("name: [")
    with pytest.raises(BadInput, match=r"policy\.yaml"):
        load_policy(file)
    with pytest.raises(ValueError, match="ask nothing"):
        policy(NO_WORSE.model_copy(update={"against": "champion"}))


def test_every_product_names_a_policy_over_its_own_suites():
    for name in product_names(PRODUCTS):
        product = load_product(name)
        suites = {suite.name: suite.metrics for suite in load_suites(product)}
        if product.planted():
            suites[CANARIES] = tuple(METRICS)
        for criterion in load_policy(product.file("gate_policy", product.gate_policy)).criteria:
            assert criterion.metric in suites[criterion.suite], criterion.name


class Parts:
    def __init__(self, home: Path) -> None:
        self.store = FsspecArtifactStore(str(home / "store"), home / "cache", TenantKeys(home / "vault"))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def model(parts: Parts, weights: bytes = b"weights") -> ModelManifest:
    product = load_product("billing-assistant")
    return ModelManifest(
        product=product.name,
        base=sha256_bytes(b"base"),
        template=product.template_digest(),
        weights=sha256_bytes(weights),
        method="lora",
        rank=8,
        checkpoint=ANY,
        datasets=learned_from(parts.store, product),
        recipe=ANY,
        licences=(),
        synthetic_share=1.0,
        action_key=ANY,
    )


def layers(
    parts: Parts, product: Product, of: ModelManifest, changed: dict[str, Any] | None = None
) -> list[LayerResults]:
    """Layers in which the candidate gets every item right and the base every second one. ``changed``: fields of the
    candidate's result on the conduct suite."""
    found: dict[str, dict[str, Digest]] = {}
    for suite in load_suites(product):
        for subject, artifact in (("base", of.base), ("candidate", of.weights)):
            items = tuple(
                ItemScore(
                    item=item.id,
                    cluster=item.cluster,
                    scores=dict.fromkeys(suite.metrics, float(subject == "candidate" or n % 2)),
                )
                for n, item in enumerate(suite.items())
            )
            stored = EvalResult(
                product=product.name,
                suite=suite.name,
                suite_digest=suite.content_digest(),
                artifact=artifact,
                template=of.template if suite.lm_eval is None else NO_TEMPLATE,
                decoding=ANY,
                engine="none",
                items=items,
                samples=None,
                action_key=ANY,
            )
            if (suite.name, subject) == ("billing-conduct", "candidate"):
                stored = stored.model_copy(update=changed or {})
            found.setdefault(suite.layer, {})[f"{suite.name}/{subject}"] = parts.store.put_manifest(stored)
    found["safety"] |= canary_results(parts.store, product, of)
    return [LayerResults(product=product.name, model=of.digest, layer=name, results=r) for name, r in found.items()]


def test_a_good_candidate_is_promoted_and_the_verdict_can_be_computed_again(parts):
    product, candidate = load_product("billing-assistant"), model(parts)
    evidence = layers(parts, product, candidate)
    verdict, hit = decide(parts, product, candidate, evidence)
    assert (verdict.decision, hit) == ("promote", False)
    results = {name: parts.store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    again = evaluate_policy(parts.store.get_manifest(verdict.policy, GatePolicy), results)
    assert again == (verdict.criteria, verdict.decision, verdict.reason)
    assert decide(parts, product, candidate, evidence) == (verdict, True)


def test_results_of_another_model_are_refused(parts):
    product = load_product("billing-assistant")
    with pytest.raises(Refused, match="not of"):
        decide(parts, product, model(parts, b"others"), layers(parts, product, model(parts)))


def test_a_layer_that_was_not_evaluated_is_refused(parts):
    product, candidate = load_product("billing-assistant"), model(parts)
    evidence = [layer for layer in layers(parts, product, candidate) if layer.layer != "general"]
    with pytest.raises(Refused, match="evaluate layer general"):
        decide(parts, product, candidate, evidence)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"artifact": ANY}, "not of"),
        ({"suite_digest": ANY}, "another edition"),
        ({"product": "another"}, "another product"),
        ({"template": ANY}, "another chat template"),
        ({"items": (ItemScore(item="conduct-001", cluster="c", scores={"must_not_call": 1.0}),)}, "do not cover"),
    ],
)
def test_evidence_that_is_not_this_candidates_is_refused(parts, changed, reason):
    product, candidate = load_product("billing-assistant"), model(parts)
    with pytest.raises(Refused, match=reason):
        decide(parts, product, candidate, layers(parts, product, candidate, changed))
