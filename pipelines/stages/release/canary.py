"""A short canary: the challenger answers a few of the product's own prompts through the gateway, before it is live."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from typing import NamedTuple

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, BadInput, Refused, Unavailable
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import CanaryVerdict
from evals.scorers import json_valid
from evals.suite import CallItem, load_suites
from pipelines.recipes.product import Product

CONCURRENCY = 4


class Answered(NamedTuple):
    """``release`` is who answered, by the gateway's own word."""

    text: str
    release: Digest | None
    milliseconds: float


Ask = Callable[[Product, Digest, CallItem], Answered]
"""Ask this release, as the product's challenger, one prompt. Raises `AssayError` when there is no answer."""


def canary_prompts(product: Product) -> list[CallItem]:
    """The canary's number of prompts, spread evenly over the product's own suites."""
    items = [item for suite in load_suites(product) for item in suite.items() if isinstance(item, CallItem)]
    if not items:
        raise BadInput(f"product {product.name} has no suite with prompts: a canary needs some")
    wanted = min(product.serving.canary.requests, len(items))
    return [items[position * len(items) // wanted] for position in range(wanted)]


def run(ask: Ask, product: Product, release: ReleaseManifest, prompts: Sequence[CallItem]) -> CanaryVerdict:
    """Passes when few enough requests failed and enough answers were valid JSON, by the product's canary rule."""
    rule = product.serving.canary

    def one(prompt: CallItem) -> Answered | AssayError:
        try:
            answer = ask(product, release.digest, prompt)
        except AssayError as error:
            return error
        if answer.release != release.digest:
            return Refused(f"release {answer.release} answered in its place")
        return answer

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        outcomes = list(pool.map(one, prompts))
    answers = [(prompt, each) for prompt, each in zip(prompts, outcomes, strict=True) if isinstance(each, Answered)]
    errors = [each for each in outcomes if isinstance(each, AssayError)]
    valid = sum(json_valid(prompt, answer.text) == 1 for prompt, answer in answers)
    reasons = []
    if len(errors) > rule.max_error_rate * len(prompts):
        reasons.append(f"{len(errors)} of {len(prompts)} requests failed (the first: {errors[0]})")
    if valid < rule.min_json_valid * len(prompts):
        reasons.append(f"{valid} of {len(prompts)} answers are valid JSON, {rule.min_json_valid:.0%} are needed")
    return CanaryVerdict(
        product=product.name,
        release=release.digest,
        champion=release.displaced_champion,
        requests=len(prompts),
        errors=len(errors),
        json_valid=valid,
        p95_ms=_p95([answer.milliseconds for _, answer in answers]),
        outcome="fail" if reasons else "pass",
        reason="; ".join(reasons) or f"{valid} of {len(prompts)} answers are valid JSON, {len(errors)} failed",
    )


class GatewayAsk:
    """Asks through the gateway at ``url`` (``http://host:port``) with the installation's operator key."""

    def __init__(self, url: str, key: str, timeout_s: float = 120) -> None:
        self.url, self.key, self.timeout_s = url, key, timeout_s

    def __call__(self, product: Product, release: Digest, prompt: CallItem) -> Answered:
        import httpx

        from pipelines.stages.serve.answer import as_openai_tools
        from pipelines.stages.serve.choice import CHALLENGER

        body = {
            "model": product.name,
            "messages": [{"role": "user", "content": prompt.text}],
            "tools": as_openai_tools(prompt.offered()),
        }
        headers = {"authorization": f"Bearer {self.key}", CHALLENGER: release}
        began = time.monotonic()
        try:
            with httpx.Client(timeout=self.timeout_s, trust_env=False) as client:
                response = client.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(f"the gateway at {self.url} did not answer: {error!r}") from error
        if response.status_code == 422:  # it did not end: an answer of the release, and no JSON
            return Answered("", response.headers["x-assay-release"], (time.monotonic() - began) * 1000)
        if response.status_code != 200:
            raise Unavailable(f"the gateway answered with status {response.status_code}: {response.text[:300]}")
        answer = response.json()
        text = answer["choices"][0]["message"]["content"] or ""
        return Answered(text, answer["assay"]["release"], (time.monotonic() - began) * 1000)


def _p95(milliseconds: list[float]) -> float:
    """The 95th percentile by nearest rank; 0 for no answers."""
    ordered = sorted(milliseconds)
    return round(ordered[ceil(0.95 * len(ordered)) - 1], 1) if ordered else 0.0
