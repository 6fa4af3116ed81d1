"""The release dossier: everything that a reviewer looks at, verdict first, on one page without outside requests, and as
Markdown for Dagster. It holds names, digests, counts and scores; the page also messages of the project's own goldens.
Texts of answers are shown only where they are asked for, on a page that the caller keeps to himself: what is stored,
logged or put into the registry is made without them.
"""

import base64
import json
from typing import Any

from data_contracts.chain import live_releases
from data_contracts.digests import Digest, sha256_bytes, sha256_json
from data_contracts.manifests import BaseManifest, ModelManifest, ReleaseManifest
from data_contracts.verdicts import EvalResult, GateVerdict
from evals import plots, served_table
from evals.policy import GatePolicy
from evals.report import Report, Texts, known_losses, measures, recitals, sections
from evals.run import SUBJECTS
from evals.suite import load_suites
from evals.templates import page
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.bom import ml_bom
from pipelines.stages.release.card import render_card
from pipelines.stages.release.card_diff import by_section, diff_cards
from pipelines.stages.release.data_card import in_brief
from pipelines.stages.release.dossier_parts import contamination, costs, noise_told, sweep
from pipelines.stages.release.evidence import check_card
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets
from pipelines.stages.release.markdown import as_html


def of_verdict(parts: Parts, product: Product, verdict: GateVerdict) -> Report:
    """The dossier of a verdict, whatever it decided, with the card that a release would have, beside the champion's."""
    model = parts.store.get_manifest(verdict.model, ModelManifest)
    bom = ml_bom(parts.store, product, model, verdict)
    records = parts.log.records()
    card = render_card(parts.store, product, model, verdict, sha256_json(bom), records)
    return _dossier(
        parts, product, model, verdict, card, live_releases(records).get((product.name, product.environment)), None
    )


def of_release(parts: Parts, product: Product, release: ReleaseManifest, with_texts: bool = False) -> Report:
    """The dossier of a registered release, with the card and the difference that were registered. Raises `Refused`
    when these do not belong together."""
    check_card(parts.store, release)
    model = parts.store.get_manifest(release.model, ModelManifest)
    verdict = parts.store.get_manifest(release.verdict, GateVerdict)
    card = parts.store.get_bytes(release.card).decode()
    texts = _texts(parts, verdict) if with_texts else None
    return _dossier(parts, product, model, verdict, card, release.displaced_champion, texts)


def _dossier(
    parts: Parts,
    product: Product,
    model: ModelManifest,
    verdict: GateVerdict,
    card: str,
    champion: Digest | None,
    texts: Texts | None,
) -> Report:
    store = parts.store
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in verdict.results.items()}
    policy = store.get_manifest(verdict.policy, GatePolicy)
    steps = checkpoints(store, model)[::-1]
    heads = training_sets(model, steps)
    sets = datasets(store, heads)
    before = "" if champion is None else store.get_bytes(store.get_manifest(champion, ReleaseManifest).card).decode()
    differ, same = by_section(before, card)
    forest = plots.forest(verdict.criteria)
    courses: dict[str, Any] = {step.stage: store.get_json(step.curve) for step in steps}
    facts: dict[str, Any] = {
        "product": product,
        "model": model,
        "base": store.get_manifest(model.base, BaseManifest),
        "verdict": verdict,
        "champion": champion,
        "percent": f"{100 * policy.confidence:g} %",
        "noise": noise_told(policy, verdict),
        "seeds": policy.noise,
        "subjects": [subject for subject in SUBJECTS if any(name.endswith(f"/{subject}") for name in results)],
        "sections": sections(policy, load_suites(product), results, texts),
        "losses": known_losses(measures(policy, results)),
        "recitals": recitals(policy, results),
        "served": served_table.tables(store, policy, results),
        "engines": sorted({result.engine for result in results.values()}),
        "with_texts": texts is not None,
        "checkpoints": steps,
        "sweeps": [(step, sweep(store, step)) for step in steps],
        "costs": costs(parts, steps),
        "data_steps": list(reversed(sets.items())),
        "brief": [(sets[head], in_brief(store, head)) for head in heads],
        "contamination": contamination(parts, sets.values()),
        "changes": differ,
        "unchanged": same,
        "card_diff": sha256_bytes(diff_cards(before, card).encode()),
    }
    drawn = [panel for stage, rows in courses.items() for panel in plots.panels(stage, rows).items()]
    return Report(
        html=page(
            "dossier.html.jinja",
            forest=forest.svg("Effects with intervals", plots.in_words(verdict.criteria)),
            panels=drawn,
            card=as_html(card.partition("\n---\n")[2], below=2),
            **facts,
        ),
        markdown=page("dossier.md.jinja", forest=_inline(forest), curves=_inline(plots.curves(courses)), **facts),
    )


def _texts(parts: Parts, verdict: GateVerdict) -> Texts:
    """What each subject said, as far as it was not erased since."""
    found: dict[str, dict[str, str]] = {}
    for name, digest in verdict.results.items():
        samples = parts.store.get_manifest(digest, EvalResult).samples
        if samples is not None and parts.store.has(samples):
            said: dict[str, Any] = parts.store.get_json(samples)
            found[name] = {item: text if isinstance(text, str) else json.dumps(text) for item, text in said.items()}
    return found


def _inline(figure: plots.Figure) -> str:
    return "data:image/png;base64," + base64.b64encode(figure.png()).decode()
