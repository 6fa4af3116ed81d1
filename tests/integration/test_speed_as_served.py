"""The serving layer on a real vLLM with the tiny base: every request is timed, scored and kept."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue

from data_contracts.digests import sha256_bytes
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.verdicts import EvalResult
from evals.as_served import ServedTimes, measure_layer
from pipelines.recipes.product import Product
from pipelines.wiring import Line
from resources.vllm_server import VllmServer
from tests.support.adapters import tiny_adapter

ANY = sha256_bytes(b"any")


class Silent:
    """Tells its setup as the real server does, and answers nothing."""

    def __init__(self, server: VllmServer) -> None:
        self.told = server.setup()

    def setup(self) -> dict[str, JsonValue]:
        return self.told


class Remembering:
    def __init__(self, line: Line) -> None:
        self.store, self.server = line.store, Silent(line.server)


def product_in(folder: Path) -> Product:
    items = [
        {
            "id": f"call-{n}",
            "cluster": f"c{n}",
            "text": f"Show INV-{n}.",
            "tools": ["get_invoice", "apply_coupon"],
            "expect": "call",
            "tool": "get_invoice",
            "arguments": {"invoice_id": f"INV-{n}"},
        }
        for n in range(12)
    ]
    (folder / "calls.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    suite: dict[str, Any] = {"name": "calls", "layer": "product", "description": "d", "unit": "u", "cluster": "c"}
    suite |= {"direction": "higher-is-better", "licence": "CC0-1.0", "origin": "generated", "data": "calls.jsonl"}
    (folder / "calls.yaml").write_text(yaml.safe_dump(suite | {"metrics": ["exact"], "headline": "exact"}))
    speed = {"name": "tiny-speed", "description": "d", "suite": str(folder / "calls.yaml"), "requests": 8, "warm_up": 2}
    bounds = {"first_token_ms": 600_000, "token_ms": 600_000, "times": 1_000_000}
    (folder / "speed.yaml").write_text(yaml.safe_dump(speed | bounds))
    return Product(
        name="tiny",
        tenant="demo",
        description="a product for tests",
        sources=({"url": "generated://none", "contract": "none"},),
        data_policy="none",
        recipe="none",
        template="billing-assistant",
        suites=(str(folder / "calls.yaml"),),
        speed=str(folder / "speed.yaml"),
        gate_policy="none",
        serving={"max_tokens": 16},
    )


def test_base_and_candidate_are_timed_as_they_are_served(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path: Path
) -> None:
    product = product_in(tmp_path)
    model = ModelManifest(
        product=product.name,
        base=tiny_base_manifest.digest,
        template=product.template_digest(),
        weights=tiny_adapter(tiny_line.store, tiny_base_manifest, tmp_path / "adapter", seed=71),
        method="lora",
        rank=4,
        checkpoint=ANY,
        datasets=(),
        recipe=ANY,
        licences=(),
        synthetic_share=0.0,
        action_key=ANY,
    )
    layer, hit = measure_layer(tiny_line, product, tiny_base_manifest, model, None)
    assert not hit
    store = tiny_line.store
    results = {name: store.get_manifest(digest, EvalResult) for name, digest in layer.results.items()}
    assert {name: result.artifact for name, result in results.items()} == {
        "tiny-speed/base": tiny_base_manifest.digest,
        "tiny-speed/candidate": model.weights,
    }
    for result in results.values():
        assert result.engine.startswith("vllm ")
        assert len(result.items) == 8 + 2
        assert not [item for item in result.items if any(item.scores.values())]
        times = store.get_manifest(str(result.samples), ServedTimes)
    assert times.setup["machine"]
    assert times.setup["slots"] == 6
    answers = [answer for timed in times.timed.values() for answer in timed.answers]
    assert all(0 < (answer.first_token_s or 0) < answer.seconds for answer in answers)
    assert all(1 < (answer.tokens or 0) <= 16 for answer in answers)

    parts: Any = Remembering(tiny_line)
    assert measure_layer(parts, product, tiny_base_manifest, model, None) == (layer, True)
