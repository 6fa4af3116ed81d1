"""The standing gateway in front of the real vLLM: swaps, rollbacks and crashes under continuous requests."""

import json
import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest, ReleaseManifest
from data_contracts.verdicts import CanaryVerdict
from pipelines.recipes.product import Rollout
from pipelines.stages.release import rollout
from pipelines.stages.release.shadow import begin_shadow, end_shadow
from pipelines.stages.serve.routes import challenging
from pipelines.stages.serve.tenants import create_key
from pipelines.wiring import Line
from resources.adapters import served_name
from resources.vllm_server import VllmServer
from tests.support.adapters import tiny_adapter
from tests.support.serving import chain, registered, tiny_product
from tests.support.swapping import QUESTION, Gateway, Traffic

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def gateway(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    scratch = tmp_path_factory.mktemp("gateway")
    product = tiny_product(scratch, "swapped")
    tiny_line.settings.products.mkdir(exist_ok=True)
    (tiny_line.settings.products / "swapped.yaml").write_text(yaml.safe_dump(product.model_dump(mode="json")))
    releases = []
    for seed in (11, 12):
        weights = tiny_adapter(tiny_line.store, tiny_base_manifest, scratch, seed)
        files = {"adapter": tiny_line.store.tree(weights)}
        release = registered(tiny_line, product, tiny_base_manifest.digest, weights, files)
        releases.append(release)
    tiny_line.supervisor.up(["gateway"], seconds=120)
    headers = {"authorization": f"Bearer {create_key(tiny_line.home, product.tenant)}"}
    url = f"http://127.0.0.1:{tiny_line.settings.gateway_port}"
    with httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        yield Gateway(tiny_line, product, client, (releases[0], releases[1]))
    tiny_line.supervisor.stop("gateway")


@pytest.fixture
def traffic(gateway: Gateway) -> Iterator[Traffic]:
    running = Traffic(gateway)
    yield running
    running.stop()


def test_a_swap_and_a_rollback_lose_no_request_and_change_once(gateway: Gateway, request: Any) -> None:
    first, second = gateway.releases
    texts: dict[Digest | None, str] = {}
    for release in (None, first, second, first):
        if release is not None:
            gateway.promote(release)
        texts[release] = gateway.ask().text
        assert gateway.ask(stream=True).text == texts[release]
    assert len(set(texts.values())) == 3
    traffic: Traffic = request.getfixturevalue("traffic")
    traffic.wait_for_more()
    gateway.promote(second)
    traffic.wait_for_more()
    rolled_back = time.monotonic()
    gateway.promote(first, "rollback.recorded")
    traffic.wait_for_more()
    traffic.stop()
    assert traffic.errors == []
    for seen in traffic.seen:
        assert all(answer.text == texts[answer.release] for answer in seen)
        changes = [b.release for a, b in pairwise(seen) if a.release != b.release]
        assert changes == [second, first]
    everything = sorted(answer for seen in traffic.seen for answer in seen)
    swapped = min(answer.ended for answer in everything if answer.release == second)
    later = {answer.release for answer in everything if swapped < answer.began and answer.ended < rolled_back}
    assert later == {second}


def test_the_traffic_decides_about_a_challenger(
    gateway: Gateway, tiny_base_manifest: BaseManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of the base, which answers for a product without a champion."""
    line = gateway.line
    product = tiny_product(tmp_path, "shared")
    (line.settings.products / "shared.yaml").write_text(yaml.safe_dump(product.model_dump(mode="json")))
    weights = tiny_adapter(line.store, tiny_base_manifest, tmp_path, 13)
    files = {"adapter": line.store.tree(weights)}
    release = registered(line, product, tiny_base_manifest.digest, weights, files)
    rule = Rollout(steps=(0.3, 0.6), answers=20, in_time_ms=60_000, margins={"answered": 0.1, "in_time": 0.2})
    probed = CanaryVerdict(
        product="shared", release=release, champion=None, requests=0, errors=0, json_valid=0, p95_ms=0, outcome="pass",
        reason="",
    )  # fmt: skip
    asked: list[str] = []

    def wait(_: float) -> None:
        """Instead of waiting, people ask."""
        for _ in range(20):
            body = {"model": "shared", "messages": QUESTION, "max_tokens": 4, "user": f"user {len(asked)}"}
            asked.append(gateway.client.post("/v1/chat/completions", json=body).json()["assay"]["route"])
        line.traces.flush()

    monkeypatch.setattr(rollout, "sleep", wait)
    with challenging(line, product, release):
        found = rollout.roll_out(line, product, line.store.get_manifest(release, ReleaseManifest), rule, probed)
    assert (found.outcome, [each.outcome for each in found.live]) == ("pass", ["within", "within"]), found.reason
    assert set(asked) == {"base", "challenger"}
    assert found.live[0].answers[0] <= asked.count("challenger")


def test_whole_answers_survive_a_kill_of_vllm(gateway: Gateway) -> None:
    gateway.promote(gateway.releases[0])
    before = gateway.ask().text
    killed = gateway.line.supervisor.pid("vllm")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert gateway.ask().text == before
    assert gateway.ask(stream=True).text == before


def test_the_registry_alias_follows_and_a_foreign_move_is_repaired(gateway: Gateway) -> None:
    first, second = gateway.releases
    gateway.promote(first)
    registry, name = gateway.line.registry, gateway.product.name

    def becomes(release: Digest) -> None:
        deadline = time.monotonic() + 30
        while registry.alias(name, "champion") != release:
            assert time.monotonic() < deadline, gateway.line.supervisor.log_tail("gateway")
            time.sleep(0.2)

    becomes(first)
    registry.set_alias(name, "champion", second)
    becomes(first)
    (repair,) = [record for record in gateway.line.log.records() if record.event == "projection.repaired"]
    assert (repair.body["projection"], repair.body["found"]) == ("alias", second)


def test_every_answer_left_a_trace(gateway: Gateway) -> None:
    body = {"model": gateway.product.name, "messages": QUESTION, "max_tokens": 4}
    answer = gateway.client.post("/v1/chat/completions", json=body).json()
    deadline = time.monotonic() + 10
    while (trace := gateway.line.traces.get(answer["id"])) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert trace.adapter == answer["assay"]["adapter"]
    assert trace.completion_tokens == answer["usage"]["completion_tokens"]
    assert Path(gateway.line.home / "traces.sqlite").stat().st_mode & 0o777 == 0o600


def test_the_base_answers_for_an_adapter_whose_bytes_were_changed(
    gateway: Gateway, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    line = gateway.line
    product = tiny_product(tmp_path, "changed")
    (line.settings.products / "changed.yaml").write_text(yaml.safe_dump(product.model_dump(mode="json")))
    weights = tiny_adapter(line.store, tiny_base_manifest, tmp_path, 14)
    folder = line.store.tree(weights)
    release = registered(line, product, tiny_base_manifest.digest, weights, {"adapter": folder})
    with (folder / "adapter_model.safetensors").open("ab") as file:
        file.write(b"!")
    chain(line, product, release)
    body = {"model": "changed", "messages": QUESTION, "max_tokens": 4}
    for _ in range(4):  # the last of which the adapter rests
        answer = gateway.client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200
        provenance = answer.json()["assay"]
        assert (provenance["route"], provenance["release"], provenance["adapter"]) == ("base", None, None)
        assert f"release {release} could not answer" in provenance["reason"]
        assert "does not match what was approved" in provenance["reason"]
    assert served_name(weights) not in line.server.loaded()


def test_a_stream_counts_its_tokens_on_the_way_and_the_client_sees_them_at_the_end(gateway: Gateway) -> None:
    body = {"model": gateway.product.name, "messages": QUESTION, "max_tokens": 4, "stream": True}
    own = body | {"stream_options": {"include_usage": True}}
    through = [json.loads(line[6:]) for line in _lines(gateway.client, "/v1/chat/completions", own)]
    assert [bool(chunk.get("usage")) for chunk in through] == [False] * (len(through) - 1) + [True]
    server = gateway.line.server
    asked = body | {"model": server.base_name()}
    asked["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    with httpx.Client(trust_env=False) as client:
        direct = [json.loads(line[6:]) for line in _lines(client, f"{server.url()}/chat/completions", asked)]
    counts = [chunk["usage"]["completion_tokens"] for chunk in direct]
    assert counts == sorted(counts)
    assert len(set(counts)) > 2


def test_a_shadow_answers_too_and_only_its_numbers_are_kept(
    gateway: Gateway, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    line, product = gateway.line, tiny_product(tmp_path, "shadowed")
    (line.settings.products / "shadowed.yaml").write_text(yaml.safe_dump(product.model_dump(mode="json")))
    releases = []
    for seed in (15, 16):
        weights = tiny_adapter(line.store, tiny_base_manifest, tmp_path, seed)
        files = {"adapter": line.store.tree(weights)}
        releases.append(registered(line, product, tiny_base_manifest.digest, weights, files))
    first, other = releases
    gateway = gateway._replace(product=product, releases=(first, other))
    gateway.promote(other)
    alone = gateway.ask().text
    gateway.promote(first)
    approved = {"release": other, "environment": product.environment}
    line.log.append("approval.accepted", product.name, approved, actor="test")
    begun = begin_shadow(line, product, other, 1.0, actor="test")
    asked = [gateway.ask(stream) for stream in (False, True)]
    assert [each.release for each in asked] == [first, first]
    deadline = time.monotonic() + 30
    while len(found := line.traces.shadows(product.name, begun.time)) < 2:
        assert time.monotonic() < deadline, line.supervisor.log_tail("gateway")
        time.sleep(0.1)
    assert {(each.live, each.shadow, each.status) for each in found} == {(first, other, 200)}
    assert [each.equal for each in found] == [each.text == alone for each in asked]
    assert all(each.ms and each.live_ms for each in found)
    end_shadow(line, product, actor="test")
    gateway.ask()
    assert len(line.traces.shadows(product.name, begun.time)) == 2


def _lines(client: httpx.Client, url: str, body: dict[str, Any]) -> list[str]:
    answer = client.post(url, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return [line for line in answer.text.split("\n\n") if line and not line.endswith("[DONE]")]
