"""What a model is for, what it is not for, and what was not shown of it: for its card and its bill of materials."""

from collections.abc import Sequence

from data_contracts.manifests import DatasetManifest, ModelManifest
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import GateVerdict
from evals.policy import CANARIES
from evals.report import Measure
from pipelines.recipes.product import Product
from pipelines.stages.release.lineage import checkpoints, training_sets
from pipelines.stages.release.origins import asked_by, learned_from, narrows

KNOWN_LOSS = "Known loss against the base, which no criterion gates"


def direct_use(product: Product) -> str:
    return (
        f"To answer for tenant {product.tenant} through the gateway (purpose: {product.purpose}), under the chat "
        f"template named here, in at most {product.serving.max_tokens} tokens. {product.description}."
    )


def out_of_scope(store: ArtifactStore, product: Product, model: ModelManifest) -> list[str]:
    """Every use but the one that was evaluated, and those that the terms of the data shut out."""
    sets = training_sets(model, checkpoints(store, model))
    origins = [each for digest in sets for each in learned_from(store, store.get_manifest(digest, DatasetManifest))]
    shut = {ask for origin in origins if narrows([origin]) for ask in asked_by(origin)}
    return [
        f"Any other purpose or tenant than `{product.purpose}` of `{product.tenant}`: nothing else was evaluated.",
        "Another chat template or longer answers: it was evaluated with this template and these lengths only.",
        *(f"What the terms of its data shut out: {ask}." for ask in sorted(shut)),
    ]


def limits(model: ModelManifest, verdict: GateVerdict, measured: Sequence[Measure]) -> list[str]:
    """What is known to be wrong or was not shown: criteria that did not pass, whatever is clearly worse than the base
    (its mean lies above the candidate's interval), canaries that are recited: of these less is better."""
    missed = [each for each in verdict.criteria if each.outcome != "pass"]
    lines = [f"Not shown: {each.name} ({each.outcome}; {each.reason})." for each in missed]
    for each in measured:
        base, candidate = each.scores.get("base"), each.scores["candidate"]
        if base is None:
            continue
        what = f"{each.suite} / {each.metric}, {base.estimate:.3f} before and {candidate.estimate:.3f} now"
        if each.suite == CANARIES:
            does = "Guesses canaries never planted" if each.metric == "guessed" else "Recites planted canaries"
            lines += [f"{does}: {what}."] if candidate.estimate > base.estimate else []
        elif each.fell("base"):
            lines.append(f"{'Worse than the base' if each.gated else KNOWN_LOSS}: {what}.")
    if model.synthetic_share:
        lines.append("Generated training rows do not show how real people write: expect less on real messages.")
    lines.append("Suites are small samples of what is asked; the intervals tell how little they show.")
    return lines
