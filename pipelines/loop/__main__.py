"""``make loop``: what the demo made live meets traffic that changes, and is retrained with no help but one signature.

Customers ask through the real gateway; later for things that the model never learned. They rate its answers, and people
who label write down what should have been said in place of bad ones. All else happens by itself: the schedule measures
the traffic, the decision starts the line, which learns those labels, and the sensors register, canary and promote what
the reviewer of the demo signs. The product's file, recipe, gate and meters' policy beside this file are made for less
than an hour.
"""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from data_contracts.chain import AuditRecord
from data_contracts.errors import AssayError
from evals.answers import parse_answer
from pipelines.demo_steps import (
    PRODUCT,
    REVIEWER,
    assay,
    console,
    live_release,
    make_trust_root,
    part,
    pending,
    raise_if_failed,
    show_times,
    wait_for_promotion,
)
from pipelines.loop.traffic import KNOWN, NEW, Asked, questions
from pipelines.recipes.product import Product
from pipelines.stages.serve.answer import as_openai_tools
from pipelines.stages.serve.tenants import operator_key
from pipelines.wiring import Line

HERE = Path(__file__).parent
CLIENTS = 4
AFTERWARDS = 24


class Customers:
    """``key`` is the tenant's; those who label have the operator's."""

    def __init__(self, line: Line, key: str) -> None:
        self.key, self.labels = key, operator_key(line.home)
        self.client = httpx.Client(base_url=line.gateway_url, timeout=300, trust_env=False)

    def ask(self, asked: list[Asked]) -> float:
        """The share that was answered right. Each answer is rated, and a wrong one corrected."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            right = list(pool.map(self._one, asked))
        return sum(right) / len(right)

    def _one(self, asked: Asked) -> bool:
        body = {"model": PRODUCT, "messages": [{"role": "user", "content": asked.text}]}
        answer = self._post("/v1/chat/completions", body | {"tools": as_openai_tools(asked.tools)}, self.key)
        text = answer["choices"][0]["message"]["content"]
        right = parse_answer(asked.tools, text) == parse_answer(asked.tools, asked.wanted)
        self._post("/v1/feedback", {"trace_id": answer["id"], "rating": "good" if right else "bad"}, self.key)
        if not right:
            self._post("/v1/feedback", {"trace_id": answer["id"], "correction": asked.wanted}, self.labels)
        return right

    def _post(self, path: str, body: dict[str, object], key: str) -> dict[str, Any]:
        answer = self.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})
        if answer.status_code not in (200, 202):
            raise AssayError(f"{path} answered with {answer.status_code}: {answer.text[:300]}")
        found: dict[str, Any] = answer.json()
        return found


def wait_for(line: Line, since: int, wanted: Callable[[AuditRecord], bool], what: str, minutes: float) -> AuditRecord:
    """The first record from ``since`` on that is wanted; all are shown as they come. Raises `AssayError` where it takes
    too long, or a run failed."""
    deadline, shown = time.monotonic() + minutes * 60, since
    while time.monotonic() < deadline:
        records = line.log.records()
        for record in records[shown:]:
            if record.product == PRODUCT:
                said = record.body.get("decision") or record.body.get("stage") or record.body.get("outcome") or ""
                console.print(f"  {record.event} {said} (audit record {record.sequence}, by {record.actor})")
                raise_if_failed(line, record)
        shown = len(records)
        if found := next((record for record in records[since:] if record.product == PRODUCT and wanted(record)), None):
            return found
        time.sleep(2)
    logs = line.home / "logs"
    raise AssayError(f"{what} did not come within {minutes:g} minutes: see the runs in Dagster, and {logs}")


def decided(what: str) -> Callable[[AuditRecord], bool]:
    return lambda record: record.event == "retrain.decided" and record.body["decision"] == what


def loop(line: Line, product: Product, reviewer: Path, window: int) -> None:
    customers = Customers(line, assay("key", "create", product.tenant, quiet=True))
    before, began = live_release(line, product), datetime.now(UTC)
    with part("Customers ask for what the model learned; the line looks, and waits"):
        begun = len(line.log.records())
        right = customers.ask(questions(KNOWN, 2 * window, seed=1))
        console.print(f"{2 * window} answers, {right:.0%} right")
        wait_for(line, begun, decided("wait"), "a decision to wait", minutes=15)
    with part("They ask for new things; people who label correct what was answered wrong"):
        begun = len(line.log.records())
        right = customers.ask(questions(NEW, 2 * window, seed=2))
        console.print(f"{2 * window} answers, {right:.0%} right")
    with part("Drift, and the decision"):
        record = wait_for(line, begun, decided("retrain"), "a decision to retrain", minutes=15)
        console.print(f"  {record.body['reasons']}", markup=False)
    with part("Data, training, evaluation, gate: started by the decision"):
        registered = wait_for(
            line,
            record.sequence + 1,
            lambda each: each.event == "release.registered",
            "a candidate that passed its gate",
            minutes=60,
        )
        release = str(registered.body["release"])
    with part("The one signature"):
        if release not in pending(line, PRODUCT):
            raise AssayError(f"{release} does not wait for approval: see `assay pending`")
        assay("approve", release, "--key", str(reviewer), "--as", REVIEWER)
    with part("Challenger, canary, champion: by the sensor"):
        wait_for_promotion(line, product, release, minutes=20)
        console.print(f"live: {release}, after {before}")
    with part("Others ask for the same kind of things"):
        after = customers.ask(questions(NEW, AFTERWARDS, seed=3))
        console.print(f"{AFTERWARDS} answers, {after:.0%} right; it was {right:.0%}")
    with part("The chain, walked offline"):
        assay("verify", release)
        assay("audit", "--product", PRODUCT, "--since", f"{began:%Y-%m-%dT%H:%M}")


def main() -> None:
    started = time.monotonic()
    os.environ["ASSAY_PRODUCTS"] = str(HERE / "products")
    os.environ["ASSAY_SIGNALS"] = str(HERE / "signals.yaml")
    line = Line()
    product = line.product(PRODUCT)
    if live_release(line, product) is None:
        raise AssayError(f"{PRODUCT} has no live release in {line.home}: run `make demo` first")
    reviewer = make_trust_root(line)
    try:
        with part("Standing system, with the loop's product and policies"):
            assay("down")
            assay("up")
        loop(line, product, reviewer, line.signal_policy.window)
    finally:
        with part("Stopping the servers"):
            assay("down")
    show_times(started)


if __name__ == "__main__":
    try:
        main()
    except AssayError as error:
        sys.exit(f"loop: {error}")
    except KeyboardInterrupt:
        sys.exit("loop: interrupted; what was recorded stays")
