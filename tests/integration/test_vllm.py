"""The real vLLM on the tiny base: right adapter for every answer, clear refusals, up again after a kill."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from data_contracts.digests import Digest, hex_of
from data_contracts.errors import Missing, Refused, Tampered, Unavailable
from data_contracts.manifests import BaseManifest
from pipelines.wiring import Line
from resources.adapters import served_name
from resources.processes import titled
from resources.vllm_program import ROOT
from resources.vllm_server import VllmServer
from tests.support.adapters import tiny_adapter, write_adapter
from tests.support.dashboards import dashboard, exported, expressions, named
from tests.support.leaks import asking, leaks
from tests.support.ports import free_ports

PROMPTS = ["hello", "what is my balance?", "cancel it"]


@pytest.fixture(scope="module")
def adapters(
    tiny_line: Line, tiny_base_manifest: BaseManifest, tmp_path_factory: pytest.TempPathFactory
) -> list[Digest]:
    scratch = tmp_path_factory.mktemp("adapters")
    return [tiny_adapter(tiny_line.store, tiny_base_manifest, scratch, seed) for seed in range(7)]


def test_base_and_as_many_adapters_as_fit_never_answer_for_each_other(
    tiny_vllm: VllmServer, adapters: list[Digest]
) -> None:
    subjects = [tiny_vllm.base_name(), *(tiny_vllm.ensure_loaded(weights) for weights in adapters[:4])]
    assert leaks(asking(tiny_vllm.url()), subjects, PROMPTS) == []


@pytest.mark.drill
def test_the_check_catches_a_server_without_the_guard(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, adapters: list[Digest]
) -> None:
    with unguarded(tiny_line, slots=2) as url:
        for weights in adapters[:2]:
            body = {"lora_name": served_name(weights), "lora_path": str(tiny_line.store.tree(weights))}
            httpx.post(f"{url}/load_lora_adapter", json=body, timeout=60).raise_for_status()
        base = f"base-{tiny_base_manifest.digest.removeprefix('sha256:')}"
        wrong = leaks(asking(url), [base, *map(served_name, adapters[:2])], PROMPTS)
    assert set(wrong) == {base}


def test_adapters_on_a_cpu_compute_what_the_reference_code_computes(tiny_line: Line) -> None:
    """Ours against vLLM's own, on tokens of several adapters; a token of none gets nothing."""
    program = """
import torch
from vllm.lora.ops.torch_ops import lora_ops
theirs = {name: getattr(lora_ops, name) for name in ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")}
from resources import vllm_lora_cpu as ours
torch.manual_seed(0)
x, a, b = torch.randn(40, 24), torch.randn(3, 1, 8, 24), torch.randn(3, 1, 16, 8)
for indices in (torch.randint(0, 3, (40,)), torch.full((40,), 2)):
    made = []
    for shrink, expand, piece in (theirs.values(), (ours.bgmv_shrink, ours.bgmv_expand, ours.bgmv_expand_slice)):
        low, whole, part = torch.zeros(40, 8), torch.ones(40, 16), torch.ones(40, 20)
        shrink(x, a, low, indices, 0.5)
        expand(low, b, whole, indices, add_inputs=True)
        piece(low, b, part, indices, 3, 16, add_inputs=False)
        made.append((low, whole, part))
    for one, other in zip(*made):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
assert not ours.grouped(x, a, torch.full((40,), -1)).any()
from vllm.lora.punica_wrapper import punica_cpu
assert punica_cpu.bgmv_shrink is lora_ops.bgmv_shrink is ours.bgmv_shrink
"""
    done = subprocess.run(
        [tiny_line.settings.serve_python, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_guard_refuses_requests_for_the_base_and_closes_other_paths(
    tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest
) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        asking(tiny_vllm.url())(f"base-{tiny_base_manifest.digest.removeprefix('sha256:')}", "hello")
    root = tiny_vllm.url().removesuffix("/v1")
    for path in ("/invocations", "/v1/responses", "/pause", "/v1/messages"):
        assert httpx.post(root + path, json={"model": "x"}).status_code == 404


def test_the_servers_dashboard_asks_for_what_it_exports(tiny_vllm: VllmServer, adapters: list[Digest]) -> None:
    asking(tiny_vllm.url())(tiny_vllm.ensure_loaded(adapters[0]), "hello")
    with httpx.Client(timeout=30, trust_env=False) as client:
        known = exported(client.get(tiny_vllm.url().removesuffix("/v1") + "/metrics").text)
    for expression in expressions(dashboard("vllm")):
        metrics, labels = named(expression)
        assert metrics <= known.keys(), expression
        assert labels <= set().union(*(known[metric] for metric in metrics)), expression


def test_adapters_beyond_the_slots_push_out_the_longest_unused_never_the_base(
    tiny_vllm: VllmServer, adapters: list[Digest]
) -> None:
    ask = asking(tiny_vllm.url())
    alone = {}
    for weights in adapters:
        alone[weights] = ask(tiny_vllm.ensure_loaded(weights), "hello")
        assert len(tiny_vllm.loaded()) <= 5
    assert tiny_vllm.loaded() == sorted([tiny_vllm.base_name(), *map(served_name, adapters[3:])])
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        ask(served_name(adapters[0]), "hello")
    assert ask(tiny_vllm.ensure_loaded(adapters[0]), "hello") == alone[adapters[0]]
    assert len(set(alone.values())) == len(adapters)


def test_a_pinned_adapter_stays_while_others_come_and_go_and_too_many_are_refused(
    tiny_vllm: VllmServer, adapters: list[Digest]
) -> None:
    ask = asking(tiny_vllm.url())
    alone = ask(tiny_vllm.ensure_loaded(adapters[0]), "hello")
    tiny_vllm.pin({"billing": adapters[0]})
    try:
        for weights in adapters[1:]:
            ask(tiny_vllm.ensure_loaded(weights), "hello")
        assert tiny_vllm.loaded() == sorted(
            [tiny_vllm.base_name(), *(served_name(weights) for weights in (adapters[0], *adapters[4:]))]
        )
        assert ask(tiny_vllm.name_of(adapters[0]), "hello") == alone
        with pytest.raises(Refused, match="billing, other-1, other-2, other-3 are to be pinned, and 3 adapters can be"):
            tiny_vllm.pin({f"other-{number}": adapters[number] for number in (1, 2, 3)})
    finally:
        tiny_vllm.pin({"billing": None})
    tiny_vllm.ensure_loaded(adapters[1])
    assert served_name(adapters[0]) in tiny_vllm.loaded(), "asked last"
    for weights in adapters[2:6]:
        tiny_vllm.ensure_loaded(weights)
    assert served_name(adapters[0]) not in tiny_vllm.loaded()


def test_vllm_reads_a_tenants_adapter_once_and_holds_it_without_its_files(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    """While others pass through all the other slots, and after its sealed files went too."""
    store, ask = tiny_line.store, asking(tiny_vllm.url())
    base = store.tree(tiny_base_manifest.tree)
    sealed = [
        store.put_tree(write_adapter(base, tiny_base_manifest.digest, tmp_path / str(seed), seed), "acme")
        for seed in range(40, 47)
    ]
    first, *others = sealed
    name = tiny_vllm.ensure_loaded(first)
    alone = ask(name, "hello")
    shutil.rmtree(Path(store.root) / "sealed" / hex_of(first))
    for weights in others:
        assert ask(tiny_vllm.ensure_loaded(weights), "hello") != alone
        assert ask(name, "hello") == alone
        with store.scratch() as mine:
            assert not list(mine.parent.glob(f"*/{hex_of(weights)}"))
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        ask(served_name(others[0]), "hello")
    assert tiny_vllm.ensure_loaded(first) == name
    assert ask(name, "hello") == alone


def test_the_server_of_another_installation_is_not_taken_for_ours(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    """It answers for the same base on the port that both ask for."""
    other = Line(
        tiny_line.settings.model_copy(update={"home": tmp_path, "store_url": str(tiny_line.settings.home / "store")})
    )
    try:
        with pytest.raises(Unavailable, match="ASSAY_VLLM_PORT"):
            other.server.ensure_running(tiny_base_manifest)
    finally:
        other.supervisor.down()
    assert tiny_vllm.loaded()


def test_a_name_never_binds_other_bytes(tiny_line: Line, tiny_vllm: VllmServer, adapters: list[Digest]) -> None:
    name = tiny_vllm.ensure_loaded(adapters[0])
    load = f"{tiny_vllm.url()}/load_lora_adapter"
    other = {"lora_name": name, "lora_path": str(tiny_line.store.tree(adapters[1]))}
    assert httpx.post(load, json=other).status_code == 409
    assert httpx.post(load, json=other | {"load_inplace": True}).status_code == 400


def test_adapters_that_do_not_fit_are_refused_with_the_reason(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    def refused(reason: str, **config: object) -> None:
        with pytest.raises(Refused, match=reason):
            tiny_vllm.ensure_loaded(tiny_adapter(tiny_line.store, tiny_base_manifest, tmp_path, 1, **config))

    refused("trained on base", base_model_name_or_path="sha256:" + "0" * 64)
    refused("rank 65", r=65)
    refused("replaces whole modules", modules_to_save=["lm_head"])
    refused("DoRA", use_dora=True)


def test_one_changed_byte_stops_an_adapter(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    weights = tiny_adapter(tiny_line.store, tiny_base_manifest, tmp_path, 99)
    file = tiny_line.store.tree(weights) / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(Tampered):
        tiny_vllm.ensure_loaded(weights)
    with pytest.raises(Missing):
        tiny_vllm.ensure_loaded("sha256:" + "1" * 64)


@pytest.mark.drill
def test_a_killed_server_comes_back_and_takes_its_adapters_again(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, adapters: list[Digest]
) -> None:
    ask = asking(tiny_vllm.url())
    before = ask(tiny_vllm.ensure_loaded(adapters[0]), "hello")
    killed = tiny_line.supervisor.pid("vllm")
    assert killed is not None
    engine = titled(str(tiny_line.supervisor.run))
    assert engine
    os.kill(killed, signal.SIGKILL)
    tiny_vllm.ensure_running(tiny_base_manifest)
    assert tiny_vllm.loaded() == [tiny_vllm.base_name()]
    assert ask(tiny_vllm.ensure_loaded(adapters[0]), "hello") == before
    assert tiny_line.supervisor.pid("vllm") != killed
    assert not any(process.is_running() for process in engine), "the engine of the killed server still runs"


@contextmanager
def unguarded(line: Line, slots: int) -> Iterator[str]:
    """vLLM as it comes: the base answers without an adapter, no slot stays empty, its own low-rank code computes."""
    plan = json.loads((line.home / "serve" / "plan.json").read_text())
    argv, port = list(plan["argv"]), free_ports(1)[0]
    for option in ("--middleware", "--worker-extension-cls", "--lora-modules"):
        at = argv.index(option)
        del argv[at : at + 2]
    argv[argv.index("--port") + 1] = str(port)
    argv[argv.index("--max-loras") + 1] = str(slots)
    with (line.home / "logs" / "unguarded.log").open("wb") as output:
        server = subprocess.Popen(
            argv, env=os.environ | plan["env"], stdout=output, stderr=output, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 200
            while not answers(port):
                assert server.poll() is None, f"vLLM stopped: see {output.name}"
                assert time.monotonic() < deadline, "vLLM did not start"
                time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
