"""Merged weights in a real vLLM beside the one with adapters: the same release answers from both, whatever dies."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from data_contracts.digests import Digest, hex_of
from data_contracts.manifests import BaseManifest
from pipelines.stages.release.export import Source
from pipelines.stages.serve.tenants import create_key
from pipelines.wiring import Line
from resources.merged_model import MergedModel
from resources.vllm_server import VllmServer
from tests.support.adapters import write_adapter
from tests.support.serving import exported, registered, tiny_product
from tests.support.swapping import QUESTION, Gateway, Traffic

pytestmark = pytest.mark.filterwarnings("ignore")  # of peft, transformers and mlflow about parts of others


@pytest.fixture(scope="module")
def gateway(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    line, scratch = tiny_line, tmp_path_factory.mktemp("merged")
    product = tiny_product(scratch, "merged")
    written = product.model_dump(mode="json") | {"serving": {"placement": "merged", "max_tokens": 64}}
    line.settings.products.mkdir(exist_ok=True)
    (line.settings.products / "merged.yaml").write_text(yaml.safe_dump(written))
    releases = []
    for seed in (21, 22):
        base = line.store.tree(tiny_base_manifest.tree)
        adapter = write_adapter(base, tiny_base_manifest.digest, scratch / f"adapter-{seed}", seed, scale=4.0)
        weights = line.store.put_tree(adapter, product.tenant)
        release = registered(line, product, tiny_base_manifest.digest, weights, {"adapter": adapter})
        merged = scratch / f"merged-{seed}"
        merged.mkdir()
        template = product.file("template", product.template).read_text()
        MergedModel().write(Source(base, adapter, False, template, product.name, release), merged)
        exported(line, release, merged)
        releases.append(release)
    line.supervisor.up(["gateway"], seconds=120)
    headers = {"authorization": f"Bearer {create_key(line.home, product.tenant)}"}
    url = f"http://127.0.0.1:{line.settings.gateway_port}"
    with httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        yield Gateway(line, product, client, (releases[0], releases[1]))
    line.supervisor.stop("gateway")
    line.merged.stop()


def answered(gateway: Gateway) -> tuple[str, str, str]:
    """Release, export (``none`` for the adapter) and two tokens of an answer: later ones hang on rounding."""
    body = {"model": gateway.product.name, "messages": QUESTION, "max_tokens": 2}
    answer = gateway.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    text = answer.json()["choices"][0]["message"]["content"]
    return answer.headers["x-assay-release"], answer.headers["x-assay-export"], text


def until(gateway: Gateway, wanted: Callable[[str, str], bool]) -> str:
    """The text of the first answer whose release and export are wanted."""
    deadline = time.monotonic() + 180
    while True:
        release, export, text = answered(gateway)
        if wanted(release, export):
            return text
        assert time.monotonic() < deadline, gateway.line.supervisor.log_tail("gateway")
        time.sleep(0.2)


def merged(release: Digest) -> Callable[[str, str], bool]:
    return lambda found, export: found == release and export != "none"


def test_a_release_answers_as_an_adapter_until_its_merged_weights_do_and_when_they_were_killed(
    gateway: Gateway,
) -> None:
    first, _ = gateway.releases
    gateway.promote(first)
    release, export, adapted = answered(gateway)
    assert (release, export) == (first, "none"), "nobody waits for the server of merged weights"
    assert until(gateway, merged(first)) == adapted
    killed = gateway.line.supervisor.pid("merged")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert answered(gateway)[:2] == (first, "none")


@pytest.mark.drill
def test_merged_weights_that_were_killed_come_back_and_a_swap_of_them_loses_no_answer(gateway: Gateway) -> None:
    first, second = gateway.releases
    gateway.promote(first)
    before = until(gateway, merged(first))
    traffic = Traffic(gateway)
    try:
        traffic.wait_for_more()
        gateway.promote(second)
        traffic.wait_for_more()
        assert until(gateway, merged(second)) != before
        traffic.wait_for_more()
    finally:
        traffic.stop()
    assert traffic.errors == []
    killed = gateway.line.supervisor.pid("merged")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert answered(gateway)[:2] == (second, "none")
    until(gateway, merged(second))


@pytest.mark.drill
def test_merged_weights_that_were_changed_are_not_served(gateway: Gateway) -> None:
    first, second = gateway.releases
    gateway.promote(second)
    until(gateway, merged(second))
    stored = gateway.line.home / "store"
    body = next(
        each.body
        for each in gateway.line.log.records()
        if each.event == "release.exported" and each.body["release"] == first
    )
    tree = hex_of(str(gateway.line.store.get_json(str(body["export"]))["tree"]))
    (weights,) = [path for path in _sealed(stored, tree) if path.name.startswith("model.safetensors")]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.chmod(0o600)
    weights.write_bytes(content)
    gateway.promote(first)
    deadline = time.monotonic() + 60
    while "merged weights are not served" not in gateway.line.supervisor.log_tail("gateway", 400):
        assert time.monotonic() < deadline
        assert answered(gateway)[:2] == (first, "none")
        time.sleep(0.2)
    assert gateway.line.supervisor.state("merged") == "STOPPED"
    assert answered(gateway)[:2] == (first, "none")


def _sealed(store: Path, tree: str) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file() and tree in path.parts]
