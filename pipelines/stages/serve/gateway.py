"""The gateway: OpenAI's chat API in front of vLLM. A key names a tenant, ``model`` names one of its products, the audit
log names the release that answers; every answer names what it came from."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, BadInput
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve import relay
from pipelines.stages.serve.admission import Admission
from pipelines.stages.serve.answer import most_tokens, template_text, tools_of, upstream_request
from pipelines.stages.serve.breaker import AdapterFailed, Breakers
from pipelines.stages.serve.choice import CHALLENGER, Choice
from pipelines.stages.serve.errors import (
    Denied,
    ServerFailed,
    error_body,
    error_response,
    failure,
    refusal_of,
    truncation,
)
from pipelines.stages.serve.limits import LimitsFile
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.tenants import Callers
from pipelines.stages.serve.tracer import Tracer
from pipelines.stages.serve.upstream import Upstream, followed_by
from pipelines.stages.serve.view import RouteView

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def make_gateway(
    parts: Parts,
    products: Callable[[], Sequence[Product]],
    reconcile_seconds: float = 5,
    now: Callable[[], datetime] = _now,
) -> FastAPI:
    """The application. ``products`` lists the product files of now; 0 seconds switches the reconciler off; ``now`` is
    the clock that sunsets, limits and breakers go by."""
    gateway = Gateway(parts, products, now)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.create_task(gateway.keep_reconciled(reconcile_seconds)) if reconcile_seconds else None
        yield
        if loop:
            loop.cancel()
        await gateway.close()

    app = FastAPI(title="Assay gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/v1/chat/completions", gateway.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", gateway.models, methods=["GET"], response_model=None)
    app.add_api_route("/v1/load", gateway.load, methods=["GET"], response_model=None)
    app.add_api_route("/healthz", gateway.health, methods=["GET"], response_model=None)
    return app


class Gateway:
    def __init__(self, parts: Parts, products: Callable[[], Sequence[Product]], now: Callable[[], datetime]) -> None:
        self.parts = parts
        self.products = products
        self.callers = Callers(parts.home)
        self.view = RouteView(parts, products)
        self.choice = Choice(parts, self.view, self.callers.operator, now)
        self.admission = Admission(parts.traces, LimitsFile(parts.home), now)
        self.breakers = Breakers(now)
        self.upstream = Upstream(parts, self.breakers)

    async def chat(self, request: Request) -> Response:
        began = time.monotonic()
        try:
            body = await _body(request)
            tenant = self._tenant(request)
            product, chosen = self.choice.first(body, tenant, request.headers.get(CHALLENGER))
            template = template_text(self.parts.store, product, chosen.goal.template)
            asked = upstream_request(body, chosen.goal, template)
            place = await self.admission.enter(
                product.tenant, most_tokens(asked), operator=tenant is None, gone=lambda: _gone(request)
            )
        except (Denied, AssayError) as error:
            return failure(error)
        trace = Tracer(self.parts.traces, product, chosen, asked, [tool.name for tool in tools_of(body)], began, place)
        try:
            if asked["stream"]:
                wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
                return await self._stream(asked, wants_usage, trace)
            return await self._whole(asked, trace)
        except AssayError as error:
            if isinstance(error, ServerFailed):
                trace.write(502, str(error))
            else:
                trace.write(503, type(error).__name__)
            return failure(error, trace.headers)
        except BaseException:
            place.leave()
            raise

    async def models(self, request: Request) -> Response:
        try:
            products = self.view.of_tenant(self._tenant(request))
        except (Denied, AssayError) as error:
            return failure(error)
        cards = [{"id": p.name, "object": "model", "created": 0, "owned_by": p.tenant} for p in products]
        return JSONResponse({"object": "list", "data": cards})

    async def health(self) -> Response:
        """Well when requests can be told who answers; vLLM's own health is another program's."""
        try:
            self.view.refresh()
        except AssayError as error:
            return JSONResponse({"healthy": False, "detail": str(error)}, status_code=503)
        return JSONResponse({"healthy": True, "products": sorted(self.view.products)})

    async def load(self, request: Request) -> Response:
        """What goes on, for the operator."""
        try:
            if self._tenant(request) is not None:
                raise Denied(403, "not_allowed", "the load is for the operator's key")
        except Denied as denied:
            return failure(denied)
        return JSONResponse(self.admission.report() | {"resting": self.breakers.resting()})

    async def keep_reconciled(self, seconds: float) -> None:
        while True:
            try:
                for line in await asyncio.to_thread(reconcile, self.parts, self.products()):
                    log.info("reconciled: %s", line)
            except Exception:
                log.exception("reconciling failed; trying again in %g seconds", seconds)
            with contextlib.suppress(AssayError):
                await asyncio.to_thread(self.view.refresh, True)
            await asyncio.sleep(seconds)

    async def close(self) -> None:
        await self.upstream.close()
        await asyncio.to_thread(self.parts.traces.flush)

    def _tenant(self, request: Request) -> str | None:
        """Who asks; ``None`` for the operator. Raises `Denied`."""
        key = _key(request)
        if self.callers.is_operator(key):
            return None
        tenant = self.callers.tenant(key)
        if tenant is None:
            raise Denied(401, "invalid_api_key", "this API key is not known: ask the operator for one")
        return tenant

    async def _ask(self, asked: dict[str, Any], trace: Tracer) -> tuple[httpx.Response, AsyncIterator[str]]:
        """The answer, or vLLM's refusal, of the first who can answer; no byte of it has reached the client. Raises
        `AssayError` where nobody can."""
        suspects: list[tuple[Digest | None, AssayError]] = []
        while True:
            goal = trace.goal
            try:
                found = await self.upstream.ask(goal, asked, trace.id)
            except AdapterFailed as failed:
                instead = self.choice.instead(trace.product, goal, (*trace.failed, goal.release), failed.error)
                if instead is None:
                    raise failed.error from failed
                log.warning("%s: %s", trace.id, instead.goal.reason)
                trace.falls_back(instead)
                asked = asked | {"chat_template": template_text(self.parts.store, trace.product, instead.goal.template)}
                suspects += [(goal.adapter, failed.error)] if failed.suspect else []
                continue
            for adapter, error in suspects:
                self.breakers.failed(adapter, error)
            return found

    async def _whole(self, asked: dict[str, Any], trace: Tracer) -> Response:
        response, _ = await self._ask(asked, trace)
        if response.status_code != 200:
            return _refused(response, trace)
        answer = relay.whole(response.json(), trace.product.name, trace.provenance, trace.seen)
        if trace.seen.half:
            trace.write(422, "truncated")
            return error_response(422, "answer_truncated", truncation(trace.goal, asked), trace.headers)
        trace.write(200)
        return JSONResponse(answer, headers=trace.headers)

    async def _stream(self, asked: dict[str, Any], wants_usage: bool, trace: Tracer) -> Response:
        response, lines = await self._ask(asked, trace)
        if response.status_code != 200:
            return _refused(response, trace)

        async def events() -> AsyncIterator[str]:
            status, reason = 499, "the client left"
            try:
                async for event in relay.streamed(lines, trace.product.name, trace.provenance, wants_usage, trace.seen):
                    yield event
                status, reason = (200, "") if trace.seen.finished else (502, "cut off")
                if trace.seen.half:
                    status, reason = 422, "truncated"
            except httpx.TransportError:
                status, reason = 502, "cut off"
            finally:
                trace.write(status, reason)
                await response.aclose()
            if status == 502:
                cut_off = error_body("server_error", "cut_off", "the answer was cut off: ask again")
                yield f"data: {json.dumps(cut_off)}\n\n"
            if status == 422:
                half = error_body("invalid_request_error", "answer_truncated", truncation(trace.goal, asked))
                yield f"data: {json.dumps(half)}\n\n"

        begun = events()
        first = await anext(begun)  # one that had not begun would not end either, and keep its place
        return StreamingResponse(followed_by(first, begun), media_type="text/event-stream", headers=trace.headers)


def _refused(response: httpx.Response, trace: Tracer) -> Response:
    """vLLM's reason for a request that cannot be answered."""
    trace.write(400, "refused by the model server")
    return error_response(400, "invalid_request", refusal_of(response), trace.headers)


async def _gone(request: Request) -> None:
    """Returns when the client has left. The body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError as error:
        raise BadInput("the body is not JSON") from error
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        raise BadInput("the body must be a JSON object with `model`, the name of a product")
    return body


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Denied(401, "invalid_api_key", "an API key is needed: Authorization: Bearer KEY")
    return key.strip()
