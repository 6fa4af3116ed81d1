"""Measure the serving layer of a candidate: the same questions to base, champion and candidate in turns, through the
server that will serve them, each timed as it streams.

Times depend on the machine, so they are no part of what an artifact is. They are kept by all that decides them, the
kind of machine included: what was measured once is not measured again.
"""

import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pydantic import Field, JsonValue

from data_contracts.actions import action_key, code_version, remembered
from data_contracts.digests import sha256_json
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult, ItemScore, LayerResults
from evals import chat
from evals.decoding import as_served, template_text
from evals.protocols import EvalParts, Question
from evals.run import Subject, served, subjects
from evals.serving_layer import behind, behind_throughput, check_counted, faults, throughput
from evals.serving_speed import Served, Timed, measure_bodies
from evals.speedtest import Asking, SpeedTest, round_name, speed_of
from pipelines.recipes.product import Product

log = logging.getLogger(__name__)
LAYER = "serving"
_MEASURING = ("evals.chat", "evals.decoding", "evals.serving_speed")
_SCORING = ("evals.as_served", "evals.serving_layer", "evals.speedtest")


class ServedTimes(Frozen):
    """One measurement. ``timed`` maps each subject to its requests, of which the n-th asked item ``items[n]``; the
    baseline is the champion where there is one, else the base. ``setup`` is what the server said of its machine and
    settings."""

    kind: Literal["served-times"] = "served-times"
    items: tuple[str, ...] = Field(min_length=1)
    concurrency: int
    engine: str
    setup: dict[str, JsonValue]
    timed: dict[str, Timed]

    @property
    def baseline(self) -> str:
        return "champion" if "champion" in self.timed else "base"


def measure_layer(
    parts: EvalParts,
    product: Product,
    base: BaseManifest,
    model: ModelManifest,
    champion: ModelManifest | None,
    fresh: bool = False,
) -> tuple[LayerResults, bool]:
    """Results of base, champion (if one is live that is not the candidate itself) and candidate; a hit when their times
    were kept. ``fresh`` measures again.

    Raises `BadInput` when the product names no speed test, `Unavailable` when the server answers nobody, `Refused` when
    a model is not of this base or the server counts no tokens.
    """
    asking = speed_of(product)
    if asking is None:
        raise BadInput(f"product {product.name} names no speed test: add `speed` to its file (docs/suites.md)")
    asked = [who._replace(decoding=as_served(product)) for who in subjects(product, base, model, champion)]
    times, hit = _times(parts, product, base, asking, asked, fresh)
    results = {
        f"{asking.test.name}/{who.name}": parts.store.put_manifest(_result(product, asking, who, times))
        for who in asked
    }
    manifest = LayerResults(product=product.name, model=model.digest, layer=LAYER, results=results)
    parts.store.put_manifest(manifest)
    return manifest, hit


def scored(test: SpeedTest, times: ServedTimes, subject: str) -> tuple[ItemScore, ...]:
    """Every request, then every round; those that were asked at once are one cluster. Raises `Refused` when the server
    counted no tokens."""
    own, baseline = times.timed[subject], times.timed[times.baseline]
    for timed in (own, baseline):
        check_counted(timed)
    requests = [
        ItemScore(
            item=times.items[answer.prompt],
            cluster=round_name(answer.round),
            scores=faults(answer, test.first_token_ms, test.token_ms) | behind(answer, other, test.times),
        )
        for answer, other in zip(own.answers, baseline.answers, strict=True)
    ]
    speeds = zip(throughput(own), throughput(baseline), strict=True)
    rounds = [
        ItemScore(
            item=round_name(number),
            cluster=round_name(number),
            scores={"behind_throughput": behind_throughput(speed, other, test.times)},
        )
        for number, (speed, other) in enumerate(speeds)
    ]
    return (*requests, *rounds)


def _times(
    parts: EvalParts, product: Product, base: BaseManifest, asking: Asking, asked: Sequence[Subject], fresh: bool
) -> tuple[ServedTimes, bool]:
    questions = {who.name: _questions(parts, product, asking, who) for who in asked}
    test, setup = asking.test, parts.server.setup()
    config: dict[str, Any] = {
        "server": chat.server_lock(),
        "setup": setup,
        "concurrency": test.concurrency,
        "warm_up": test.warm_up,
        "subjects": {who.name: who.artifact for who in asked},
    }
    key = action_key("time", code_version(*_MEASURING), config, [base.digest, sha256_json(questions)])

    def work() -> ServedTimes:
        endpoints = [served(parts, base, who) for who in asked]
        sides = [Served(name=w.name, url=e.url, model=e.name, price=0.0) for w, e in zip(asked, endpoints, strict=True)]
        # In service a prompt is new, and what many have in common (tools, the template's words) lies in the cache.
        salt = {"cache_salt": secrets.token_hex(8)}
        bodies = [[question | salt for question in questions[who.name]] for who in asked]
        keys = ["none"] * len(sides)
        timed = measure_bodies(sides, bodies, test.concurrency, test.warm_up, keys, _say(test, len(bodies[0])))
        return ServedTimes(
            items=tuple(item.id for item in asking.questions()),
            concurrency=test.concurrency,
            engine=endpoints[0].engine(),
            setup=setup,
            timed={who.name: each for who, each in zip(asked, timed, strict=True)},
        )

    if fresh:
        times = work()
        parts.store.put_action(key, parts.store.put_manifest(times))
        return times, False
    return remembered(parts.store, key, ServedTimes, work)


def _questions(parts: EvalParts, product: Product, asking: Asking, who: Subject) -> list[Question]:
    template = template_text(parts.store, product, who.template)
    return [who.decoding.question(template, item) for item in asking.questions()]


def _result(product: Product, asking: Asking, who: Subject, times: ServedTimes) -> EvalResult:
    """From the times alone, so that another bound is a matter of scoring and nothing is measured again for it."""
    edition = asking.content_digest()
    return EvalResult(
        product=product.name,
        suite=asking.test.name,
        suite_digest=edition,
        artifact=who.artifact,
        template=who.template,
        decoding=who.decoding.digest,
        engine=times.engine,
        items=scored(asking.test, times, who.name),
        samples=times.digest,
        action_key=action_key("score-times", code_version(*_SCORING), product.name, [edition, times.digest]),
    )


def _say(test: SpeedTest, total: int) -> Callable[[int], None]:
    def say(done: int) -> None:
        log.info("%s: %s of %s asked of each", test.name, done, total)

    return say
