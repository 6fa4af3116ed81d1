"""A gateway in front of a model server that answers at once, two tenants and the operator, and the clock it goes by."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.traces import Trace
from pipelines.recipes.product import Keep, Product
from pipelines.stages.serve.gateway import make_gateway
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.spans import Telemetry
from pipelines.stages.serve.tenants import create_key, operator_key
from tests.support.ports import free_ports
from tests.support.serving import FakeParts, chain, fake_vllm, registered, running, tiny_product

HELLO = [{"role": "user", "content": "hello"}]


class Clock:
    """Stands still at the moment it is made, until it is moved."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Installation:
    """A gateway with its parts, two tenants and a client for each."""

    def __init__(self, parts: FakeParts, product: Product, other: Product, url: str) -> None:
        self.parts, self.product, self.other, self.url = parts, product, other, url
        self.clients: list[httpx.Client] = []
        self.client = self.of(create_key(parts.home, product.tenant))
        self.operator = self.of(operator_key(parts.home))

    def of(self, key: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {key}"}
        self.clients.append(httpx.Client(base_url=self.url, headers=headers, timeout=30, verify=False))
        return self.clients[-1]

    def release(self, seed: str) -> Digest:
        return registered(self.parts, self.product, self.parts.base.digest, sha256_bytes(seed.encode()))

    def promote(self, seed: str) -> Digest:
        digest = self.release(seed)
        chain(self.parts, self.product, digest)
        reconcile(self.parts, [self.product, self.other])
        return digest

    def ask(self, client: httpx.Client | None = None, **more: Any) -> httpx.Response:
        headers, timeout = more.pop("headers", {}), more.pop("httpx_timeout", 30)
        body = {"model": self.product.name, "messages": HELLO} | more
        return (client or self.client).post("/v1/chat/completions", json=body, headers=headers, timeout=timeout)

    def load(self) -> dict[str, Any]:
        found: dict[str, Any] = self.operator.get("/v1/load").json()
        return found

    def trace(self, trace_id: str) -> Trace:
        self.parts.traces.flush()
        found = self.parts.traces.get(trace_id)
        assert found is not None
        return found

    def scraped(self) -> str:
        answer = self.operator.get("/metrics")
        assert answer.status_code == 200
        return answer.text


@contextmanager
def installed(
    folder: Path,
    limits: str = "",
    clock: Clock | None = None,
    telemetry: Telemetry | None = None,
    keep: Keep | None = None,
    traces: str = "",
    **serving: object,
) -> Iterator[Installation]:
    """``limits``: the text of ``limits.yaml``; ``serving``: of the product, ``keep``: of both; ``traces``: a url. A
    folder may be used again."""
    parts = FakeParts(folder, traces)
    if limits:
        (folder / "limits.yaml").write_text(limits)
    product = tiny_product(folder / "product")
    product = product.model_copy(update={"serving": product.serving.model_copy(update=serving), "keep": keep})
    other = tiny_product(folder / "product", "pricing", "globex").model_copy(update={"keep": keep})
    app = make_gateway(parts, lambda: [product, other], reconcile_seconds=0, now=clock or Clock(), telemetry=telemetry)
    with fake_vllm(parts.server), running(app, free_ports(1)[0]) as url:
        found = Installation(parts, product, other, url)
        try:
            yield found
        finally:
            for client in found.clients:
                client.close()
