"""Releases as the audit log holds them, without training or review; and a stand-in for vLLM that answers at once."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from data_contracts.digests import Digest, hex_of, sha256_bytes
from data_contracts.errors import Refused
from data_contracts.manifests import (
    BaseManifest,
    ExportManifest,
    ModelManifest,
    ReleaseManifest,
    SignedHead,
    SuiteAgreement,
)
from evals.answers import words
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Moderator
from pipelines.stages.serve.capacity import refuse_more_pinned_than_fit
from resources.adapters import served_name
from resources.artifact_store import FsspecArtifactStore
from resources.audit_log import FileAuditLog
from resources.feedback import open_feedback
from resources.keyring import SqliteKeyring
from resources.locks import FileLocks
from resources.tenant_keys import TenantKeys
from resources.traces import open_traces
from tests.support.ports import free_ports
from tests.support.registry import FakeRegistry
from tests.support.tiny import CHATML

ANY = sha256_bytes(b"not looked at")


def tiny_product(folder: Path, name: str = "billing", tenant: str = "acme") -> Product:
    """A product with the plain ChatML template, which lies in ``folder``."""
    template = folder / "chatml.jinja"
    template.parent.mkdir(parents=True, exist_ok=True)
    template.write_text(CHATML)
    return Product(
        name=name,
        tenant=tenant,
        description="a product for tests",
        sources=({"url": "generated://none", "contract": "none"},),
        data_policy="none",
        recipe="none",
        template=str(template),
        suites=("none",),
        gate_policy="none",
    )


def registered(
    parts: Any, product: Product, base: Digest, weights: Digest, files: Mapping[str, Path] | None = None
) -> Digest:
    """A release of this adapter that was registered and approved, by the log and the registry."""
    template = parts.store.put_bytes(product.file("template", product.template).read_bytes())
    model = ModelManifest(
        product=product.name,
        base=base,
        template=template,
        weights=weights,
        method="lora",
        rank=4,
        checkpoint=ANY,
        datasets=(),
        recipe=ANY,
        licences=(),
        synthetic_share=1,
        action_key=ANY,
    )
    release = ReleaseManifest(
        product=product.name,
        tenant=product.tenant,
        environment=product.environment,
        model=parts.store.put_manifest(model),
        weights=weights,
        base=base,
        template=template,
        verdict=ANY,
        card=ANY,
        card_diff=ANY,
        policy=ANY,
        serving_config=ANY,
        displaced_champion=None,
        log_head=SignedHead(sequence=-1, head=ANY, signature=""),
        action_key=ANY,
    )
    digest: Digest = parts.store.put_manifest(release)
    parts.registry.register(product.name, digest, files or {}, {})
    for event in ("release.registered", "approval.accepted"):
        parts.log.append(event, product.name, {"release": digest, "environment": product.environment}, actor="test")
    return digest


def chain(parts: Any, product: Product, release: Digest | None, event: str = "promotion.recorded") -> None:
    """Record that this release is live from now on."""
    parts.log.append(event, product.name, {"release": release, "environment": product.environment}, actor="test")


class FakeVllm:
    """A model server over HTTP whose answers name the adapter they came from."""

    def __init__(self, base: BaseManifest) -> None:
        self.served = base
        self.port = free_ports(1)[0]
        self.names = {"adapter-zero"}
        self.residents = 6
        self.pins: dict[str, Digest] = {}
        self.refuses: set[Digest] = set()
        self.tries: Counter[Digest] = Counter()
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        """Of each request in `asked`."""
        self.loads: list[Digest] = []
        self.may_load = threading.Event()
        """While it is not set, loads wait."""
        self.may_load.set()
        self.loading = self.most_loading = 0
        self.breaks = 0
        """How many streams to cut off after their second chunk."""
        self.cuts = 0
        """How many answers to end at ``max_tokens``, in their midst."""
        self.on_refusal: Callable[[], object] = lambda: None
        self.broken: set[str] = set()
        """Names whose requests fail inside the server."""
        self.slow: set[str] = set()
        """Names whose whole answers wait as if `free` were not set."""
        self.says: dict[str, str] = {}
        """Its answer, by the last message."""
        self.garbage = ""
        """What it says instead of an answer, with status 200."""
        self.free = threading.Event()
        """While it is not set, answers wait; streams do so in their midst."""
        self.free.set()

    def ensure_running(self, base: BaseManifest) -> None:
        self.served = base

    def ensure_loaded(self, weights: Digest) -> str:
        self.tries[weights] += 1
        if weights in self.refuses:
            self.on_refusal()
            raise Refused(f"adapter {weights} was trained on another base")
        self.loading += 1
        self.most_loading = max(self.most_loading, self.loading)
        assert self.may_load.wait(60), "nobody lets it load"
        self.loading -= 1
        self.loads.append(weights)
        self.names.add(served_name(weights))
        return served_name(weights)

    def name_of(self, weights: Digest) -> str:
        return served_name(weights)

    def pin(self, adapters: Mapping[str, Digest | None]) -> None:
        pins = {product: weights for product, weights in (self.pins | adapters).items() if weights}
        refuse_more_pinned_than_fit(list(pins), self.residents)
        self.pins = pins

    def slot_bytes(self) -> int:
        return 1 << 30

    def unload(self, weights: Digest) -> None:
        self.names.discard(served_name(weights))

    def base(self) -> BaseManifest | None:
        return self.served

    def base_name(self) -> str:
        return "adapter-zero"

    def loaded(self) -> list[str]:
        return sorted(self.names)

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(request.headers)
        if body["model"] not in self.names:
            return JSONResponse({"error": {"message": "no such adapter", "code": 404}}, status_code=404)
        if body["messages"][-1]["content"] == "too long":
            return JSONResponse({"error": {"message": "the prompt is too long", "code": 400}}, status_code=400)
        if body["model"] in self.broken:
            error = {"error": {"message": "broken", "code": 500}}
            line = f"data: {json.dumps(error)}\n\n"
            return Response(line, media_type="text/event-stream") if body["stream"] else JSONResponse(error, 500)
        if self.garbage:
            return Response(f"data: {self.garbage}\n\n" if body["stream"] else self.garbage)
        trace = f"chatcmpl-{request.headers['x-request-id']}"
        text = self.says.get(body["messages"][-1]["content"], words(body["model"]))
        end = "stop"
        if self.cuts > 0:
            self.cuts -= 1
            text, end = text[: len(text) // 2], "length"
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        whole = {"id": trace, "object": "chat.completion", "created": 1, "model": body["model"]}
        if not body["stream"]:
            await self._held(body["model"])
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": end}
            return JSONResponse(whole | {"choices": [choice], "usage": usage})
        breaking = self.breaks > 0
        self.breaks -= breaking
        return StreamingResponse(self._events(whole, text, usage, breaking, end), media_type="text/event-stream")

    async def _held(self, name: str = "") -> None:
        while not self.free.is_set() or name in self.slow:
            await asyncio.sleep(0.005)

    async def _events(
        self, whole: dict[str, Any], text: str, usage: dict[str, int], breaking: bool, end: str
    ) -> AsyncIterator[str]:
        def event(choices: list[Any], **more: Any) -> str:
            return f"data: {json.dumps(whole | {'object': 'chat.completion.chunk', 'choices': choices} | more)}\n\n"

        yield event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        half = len(text) // 2
        so_far = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
        yield event([{"index": 0, "delta": {"content": text[:half]}, "finish_reason": None}], usage=so_far)
        await self._held()
        if breaking:
            raise ConnectionAbortedError
        yield event([{"index": 0, "delta": {"content": text[half:]}, "finish_reason": end}])
        yield event([], usage=usage)
        yield "data: [DONE]\n\n"


@contextmanager
def running(app: FastAPI, port: int) -> Iterator[str]:
    """Serve an application on a thread, by the parser that the standing gateway has; its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, http="h11", log_level="critical", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def fake_vllm(server: FakeVllm) -> Iterator[FakeVllm]:
    app = FastAPI()
    app.add_api_route("/v1/chat/completions", server.chat, methods=["POST"], response_model=None)
    with running(app, server.port):
        yield server


class FakeMerged:
    """A server of merged weights that starts at once; ``server`` answers, once it is run."""

    def __init__(self) -> None:
        self.server = FakeVllm(BaseManifest(name="b", source="folder", licence="none", tree=ANY, parameters=1))
        self.export: ExportManifest | None = None
        self.served: list[Digest] = []

    def serve(self, export: ExportManifest) -> None:
        self.export, self.server.names = export, {merged_name(export)}
        self.served.append(export.release)

    def serves(self, export: ExportManifest) -> bool:
        return self.export == export

    def running(self) -> bool:
        return self.export is not None

    def stop(self) -> None:
        self.export, self.server.names = None, set()

    def export_of(self, release: Digest) -> tuple[Digest, str] | None:
        if self.export is None or self.export.release != release:
            return None
        return self.export.digest, merged_name(self.export)

    def held(self) -> tuple[Digest, int] | None:
        return None if self.export is None else (self.export.release, 4 << 30)

    def url(self) -> str:
        return self.server.url()


def merged_name(export: ExportManifest) -> str:
    return f"merged-{hex_of(export.tree)}"


def exported(parts: Any, release: Digest, folder: Path | None = None) -> ExportManifest:
    """Its merged weights, the ``folder`` or one file, in the store and in the log."""
    manifest = parts.store.get_manifest(release, ReleaseManifest)
    if folder is None:
        folder = parts.home / f"merged-{hex_of(release)}"
        folder.mkdir()
        (folder / "model.safetensors").write_text(release)
    export = ExportManifest(
        product=manifest.product,
        release=release,
        format="merged",
        base=manifest.base,
        weights=manifest.weights,
        template=manifest.template,
        tree=parts.store.put_tree(folder, manifest.tenant),
        tools={},
        engine="made up",
        agreement=(SuiteAgreement(suite="s", metric="exact", n=1, recorded=1, exported=1, differ=()),),
        left_out=(),
        public_key="none",
    )
    body = {"release": release, "export": parts.store.put_manifest(export), "format": "merged"}
    parts.log.append("release.exported", manifest.product, body, actor="test")
    return export


class FakeParts:
    """Real store, log, locks and traces in a folder; a registry in memory; any model server."""

    def __init__(self, home: Path, traces: str = "") -> None:
        self.home = home
        self.tenant_keys = TenantKeys(home / "vault" / "tenants")
        self.store = FsspecArtifactStore(str(home / "store"), home / "cache", self.tenant_keys)
        self.log = FileAuditLog(home / "chain", home / "keys" / "log_ed25519")
        self.log.signer_line()
        self.locks = FileLocks(home / "locks")
        self.traces = open_traces(traces, home / "traces.sqlite", home / "spool")
        self.moderator: Moderator | None = None
        self.feedback = open_feedback(traces, home / "feedback.sqlite", home / "feedback-spool")
        self.keyring = SqliteKeyring(home / "vault" / "keys.sqlite")
        self.registry = FakeRegistry()
        self.base = BaseManifest(name="b", source="folder", licence="none", tree=ANY, parameters=1)
        self.store.put_manifest(self.base)
        self.server: Any = FakeVllm(self.base)
        self.merged: Any = FakeMerged()
