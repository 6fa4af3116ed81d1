"""The technique desk: a plain prompt, worked examples, retrieval and the fine-tuned model on the same goldens.

Answers are kept as in any evaluation, so that a second run asks only for what is timed: latency, tokens and cost are
measured anew each time, the techniques in turns.
"""

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_contracts.digests import sha256_file
from data_contracts.errors import BadInput, Unavailable
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult
from evals import stats
from evals.decoding import template_text
from evals.desk_sheet import DeskSheet, OnSuite, Speed, Training, in_server_seconds, on_suite, speed
from evals.document import Document, volatility
from evals.protocols import EvalParts
from evals.question import QuestionItem
from evals.recommend import Technique, overall
from evals.retrieval import nearest, read_documents
from evals.run import Way, evaluate, respondent, served
from evals.serving_speed import Served, measure_bodies
from evals.suite import Suite
from evals.techniques import Put, chat_items, load_asked, load_examples, put
from pipelines.recipes.product import Desk, Product

WARM_UP = 2
"""Requests of each technique and suite that are not timed."""
LEAST = WARM_UP + 1
"""Items that a suite is asked at least."""


class Asking(NamedTuple):
    """``limit``: only so many items of each suite, from its start; ``timed`` of them are asked again against the clock,
    ``concurrency`` at once."""

    limit: int | None = None
    timed: int = 24
    concurrency: int = 4


class _Desk(NamedTuple):
    """What is the same for all suites; ``facts`` are the names of those that ask for facts."""

    parts: EvalParts
    product: Product
    desk: Desk
    base: BaseManifest
    model: ModelManifest
    template: str
    documents: Sequence[Document]
    examples: Sequence[QuestionItem]
    facts: frozenset[str]
    asking: Asking
    price: float | None
    training: Training | None
    say: Callable[[str], None]


def compare(
    parts: EvalParts,
    product: Product,
    base: BaseManifest,
    model: ModelManifest,
    training: Training | None,
    price: float | None,
    asking: Asking,
    say: Callable[[str], None],
) -> DeskSheet:
    """The sheet, in the store. Raises `BadInput` for a product without a desk, and for files that do not fit."""
    desk = product.desk
    if desk is None:
        raise BadInput(
            f"product {product.name} has no technique desk: add a section `desk` with documents, as_of, "
            "retrained_days, and suites or facts (docs/technique-desk.md)"
        )
    path = product.file("documents", desk.documents)
    suites = load_asked(product, desk)
    state = _Desk(
        parts,
        product,
        desk,
        base,
        model,
        template_text(parts.store, product, model.template),
        read_documents(path, desk.as_of),
        load_examples(product, desk, suites),
        frozenset(suite.name for suite in suites[len(desk.suites) :]),
        asking,
        price,
        training,
        say,
    )
    for suite in suites:
        _check(state, suite, path)
    found: list[OnSuite] = []
    engines: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for suite in suites:
            put_on, engine = _on_suite(state, suite, Path(folder))
            found.append(put_on)
            engines.add(engine)
    sheet = DeskSheet(
        product=product.name,
        model=model.digest,
        base=base.digest,
        template=model.template,
        documents=sha256_file(path),
        embedder=parts.embedder.identity,
        passages=desk.passages,
        as_of=desk.as_of,
        retrained_days=desk.retrained_days,
        least=desk.least,
        concurrency=asking.concurrency,
        limit=asking.limit,
        price=price,
        engine=", ".join(sorted(engines)),
        training=training,
        suites=tuple(found),
        choice=overall({each.suite: each.choice for each in found}, _costs(found)),
    )
    parts.store.put_manifest(sheet)
    return sheet


def _check(state: _Desk, suite: Suite, path: Path) -> None:
    """Raises `BadInput` for a suite that is too short, and for a question on facts whose document is not there."""
    items = chat_items(suite)
    if len(items) < LEAST:
        raise BadInput(f"suite {suite.name} has {len(items)} items: the desk needs {LEAST} at least")
    known = {document.id for document in state.documents}
    for item in items if suite.name in state.facts else ():
        if item.cluster not in known:
            raise BadInput(
                f"{suite.data_path()}, item {item.id}, field cluster: {item.cluster} is no document of {path}: "
                "name the one that answers it, or list the suite under `suites` in the desk section"
            )


def _on_suite(state: _Desk, suite: Suite, folder: Path) -> tuple[OnSuite, str]:
    """The suite's part of the sheet, and what computed its answers."""
    items = chat_items(suite)
    state.say(f"{suite.name}: looking for passages in {len(state.documents)} documents")
    passages = nearest(state.parts.embedder, state.documents, [item.text for item in items], state.desk.passages)
    found = dict(zip((item.id for item in items), passages, strict=True))
    ways = put(state.product, state.base, state.model, suite, found, state.examples, folder)
    results = {each.technique: _answered(state, each) for each in ways}
    speeds = _timed(state, ways)
    asked = items[: state.asking.limit]
    facts = suite.name in state.facts
    named = {item.cluster for item in asked}
    made = on_suite(
        suite,
        results,
        speeds,
        [_recalled(item.id, item.cluster, found[item.id]) for item in asked] if facts else (),
        volatility([each for each in state.documents if each.id in named], state.desk.as_of) if facts else None,
        state.desk.retrained_days,
        state.desk.least,
        in_server_seconds(state.training, state.price),
    )
    return made, ", ".join(sorted({result.engine for result in results.values()}))


def _recalled(item: str, document: str, found: Sequence[Document]) -> stats.Score:
    return stats.Score(item, document, float(any(each.id == document for each in found)))


def _answered(state: _Desk, put_on: Put) -> EvalResult:
    who = respondent(state.parts, state.base, put_on.subject)
    way = Way(state.template, put_on.subject.decoding, state.asking.limit)

    told = False

    def tell(done: int, total: int) -> None:
        nonlocal told
        if not told or done % 16 == 0 or done == total:
            told = True
            state.say(f"{put_on.suite.name}, {put_on.technique}: {done} of {total} answered")

    return evaluate(state.parts, put_on.suite, who, way, tell, state.product.name)[0]


def _timed(state: _Desk, ways: Sequence[Put]) -> Mapping[Technique, Speed]:
    """The first items again, against the clock. The salt keeps the server from finding their prompts in its cache;
    what the requests of one technique have in common (tools, examples) it keeps, as in service.

    Raises `Unavailable` where a technique got no answer at all.
    """
    suite, salt = ways[0].suite.name, secrets.token_hex(8)
    endpoints = [served(state.parts, state.base, each.subject) for each in ways]
    sides = [
        Served(name=each.technique, url=endpoint.url, model=endpoint.name, price=state.price or 0.0)
        for each, endpoint in zip(ways, endpoints, strict=True)
    ]
    many = min(state.asking.timed, state.asking.limit or state.asking.timed)
    bodies = [
        [
            each.subject.decoding.question(state.template, item) | {"cache_salt": f"{salt}-{each.technique}"}
            for item in chat_items(each.suite)[:many]
        ]
        for each in ways
    ]

    def tell(done: int) -> None:
        state.say(f"{suite}: {done} of {len(bodies[0])} timed")

    timed = measure_bodies(sides, bodies, state.asking.concurrency, WARM_UP, ["none"] * len(sides), tell)
    for each, taken in zip(ways, timed, strict=True):
        if all(answer.error for answer in taken.answers):
            raise Unavailable(f"{suite}, {each.technique}: no timed request was answered: {taken.answers[0].error}")
    return {each.technique: speed(taken, state.price) for each, taken in zip(ways, timed, strict=True)}


def _costs(suites: Sequence[OnSuite]) -> dict[Technique, float]:
    """Seconds of the server for 1,000 requests on each suite."""
    costs: dict[Technique, float] = {}
    for suite in suites:
        for row in suite.rows:
            costs[row.technique] = costs.get(row.technique, 0.0) + row.speed.server_s
    return costs
