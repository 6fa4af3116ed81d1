"""The model card is one that Hugging Face's own tools read, and tells what the manifests and the verdict tell."""

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from data_contracts.digests import sha256_bytes
from data_contracts.manifests import ModelManifest
from data_contracts.verdicts import EvalResult
from evals.policy import CANARIES, GatePolicy
from evals.report import Measure, measures
from evals.stats import Interval
from pipelines.stages.release.card import render_card
from pipelines.stages.release.uses import limits
from tests.support.dossier import Judged, judged

BOM = sha256_bytes(b"bom")


def card_of(made: Judged) -> str:
    return render_card(made.line.store, made.product, made.model, made.verdict, BOM, made.line.log.records())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return judged(tmp_path_factory.mktemp("card"))


def test_its_results_come_back_out_of_its_front_matter(made: Judged) -> None:
    card = ModelCard(card_of(made))
    store = made.line.store
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in made.verdict.results.items()}
    expected = {
        (each.suite, each.edition, each.metric): round(each.scores["candidate"].estimate, 4)
        for each in measures(store.get_manifest(made.verdict.policy, GatePolicy), results)
    }
    read = card.data.eval_results
    assert {
        (each.dataset_type, each.dataset_revision, each.metric_type): each.metric_value for each in read
    } == expected
    assert all("interval" in each.metric_name for each in read)
    assert (card.data.model_name, card.data.license, card.data.base_model) == (made.product.name, "apache-2.0", "tiny")
    # What their classes write of it again is what was read.
    again = ModelCard(f"---\n{card.data.to_yaml()}\n---\n\n{card.text}")
    assert again.data.to_dict() == card.data.to_dict()


def test_it_has_the_sections_of_their_template_in_their_order(made: Judged) -> None:
    import huggingface_hub

    template = Path(str(huggingface_hub.__file__)).parent / "templates" / "modelcard_template.md"
    theirs = [line.replace(" [optional]", "") for line in template.read_text().splitlines() if line.startswith("##")]
    ours = [line for line in card_of(made).splitlines() if line.startswith("##")]
    assert [each for each in theirs if each in ours] == ours
    for needed in (
        *("## Uses", "### Out-of-Scope Use", "## Bias, Risks, and Limitations", "### Training Data"),
        *("### Training Procedure", "## Evaluation", "### Results", "## Environmental Impact"),
    ):
        assert needed in ours


def test_what_was_not_shown_and_what_got_worse_are_limitations(tmp_path: Path) -> None:
    """The candidate knows less than the base: the gate holds it, and the card says why."""
    made = judged(tmp_path, right=lambda subject, n: n % 10 == 0 if subject == "candidate" else n % 10 != 0)
    limits = card_of(made).partition("## Bias, Risks, and Limitations")[2].partition("##")[0]
    missed = [each for each in made.verdict.criteria if each.outcome != "pass"]
    assert missed
    assert all(f"Not shown: {each.name} ({each.outcome}; {each.reason})." in limits for each in missed)
    assert "Worse than the base: billing-tools / exact, 0.889 before and 0.111 now." in limits
    assert "Recites planted canaries: planted-canaries / extraction, 0.000 before and 0.250 now." in limits


def test_the_time_of_training_is_the_audit_logs_and_the_hardware_the_manifests(made: Judged) -> None:
    store, log = made.line.store, made.line.log
    assert "| preference | not recorded | cpu | not recorded |" in card_of(made)
    model = store.get_manifest(made.verdict.model, ModelManifest)
    body = {"checkpoint": model.checkpoint, "stage": "preference", "seconds": 42, "weights": model.weights}
    log.append("checkpoint.recorded", made.product.name, body, actor="test")
    log.append("checkpoint.recorded", made.product.name, body | {"seconds": 1}, actor="test")
    assert "| preference | 42 | cpu | not recorded |" in card_of(made), "the first record stands"
    assert "Trained with python 3.11.7, torch 2.13.0+cpu." in card_of(made)
    assert BOM in card_of(made)


def test_of_canaries_fewer_recited_is_no_fault_and_a_guess_is_no_recital(made: Judged) -> None:
    def said(metric: str, base: float, candidate: float) -> str:
        scores = {"base": Interval(base, 0, 1), "candidate": Interval(candidate, 0, candidate)}
        return " ".join(limits(made.model, made.verdict, [Measure(CANARIES, BOM, metric, 8, scores, gated=False)]))

    assert "0.750" not in said("extraction", 0.75, 0.25)
    assert "Recites planted canaries: planted-canaries / extraction, 0.250 before and 0.750 now." in said(
        "extraction", 0.25, 0.75
    )
    guessed = said("guessed", 0.25, 0.75)
    assert "Guesses canaries never planted: planted-canaries / guessed, 0.250 before" in guessed
    assert "Recites" not in guessed
