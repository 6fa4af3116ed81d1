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
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from starlette.exceptions import HTTPException

from data_contracts.digests import Digest
from data_contracts.errors import AssayError
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve import relay
from pipelines.stages.serve.admission import Admission
from pipelines.stages.serve.answer import most_tokens, template_text, tools_of, upstream_request
from pipelines.stages.serve.body import read_body
from pipelines.stages.serve.breaker import AdapterFailed, Breakers
from pipelines.stages.serve.choice import CHALLENGER, Choice
from pipelines.stages.serve.content_filter import ContentFilter
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
from pipelines.stages.serve.loading import AdapterLoads
from pipelines.stages.serve.merged import place_merged
from pipelines.stages.serve.metrics import Metrics
from pipelines.stages.serve.mirror import Mirror
from pipelines.stages.serve.openapi import description
from pipelines.stages.serve.opinions import Opinions
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.residence import Residents
from pipelines.stages.serve.sampler import Sampler
from pipelines.stages.serve.schema import check_feedback
from pipelines.stages.serve.spans import Spans, Telemetry
from pipelines.stages.serve.tenants import Callers
from pipelines.stages.serve.tracer import Tracer
from pipelines.stages.serve.upstream import Upstream, followed_by
from pipelines.stages.serve.view import RouteView

CUT_OFF = (502, "cut off", "cut_off")

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


def make_gateway(
    parts: Parts,
    products: Callable[[], Sequence[Product]],
    reconcile_seconds: float = 5,
    now: Callable[[], datetime] = _now,
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The application. ``products`` lists the product files of now; 0 seconds switches the reconciler off; ``now`` is
    the clock that sunsets, limits and breakers go by; ``telemetry`` takes OpenTelemetry spans."""
    gateway = Gateway(parts, products, now, telemetry)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(parts.traces.resume)
        await asyncio.to_thread(parts.feedback.resume)
        kept = (gateway.keep_reconciled, gateway.keep_merged) if reconcile_seconds else ()
        loops = [asyncio.create_task(keep(reconcile_seconds)) for keep in kept]
        yield
        for loop in loops:
            loop.cancel()
        await gateway.close()

    app = FastAPI(title="Assay gateway", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/v1/chat/completions", gateway.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/feedback", gateway.feedback, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", gateway.models, methods=["GET"], response_model=None)
    app.add_api_route("/v1/load", gateway.load, methods=["GET"], response_model=None)
    app.add_api_route("/healthz", gateway.health, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", gateway.scrape, methods=["GET"], response_model=None)
    app.add_api_route("/openapi.json", description, methods=["GET"])
    for kind in (Denied, AssayError, HTTPException, Exception):
        app.add_exception_handler(kind, gateway.refuse)
    return app


class Gateway:
    def __init__(
        self,
        parts: Parts,
        products: Callable[[], Sequence[Product]],
        now: Callable[[], datetime],
        telemetry: Telemetry | None = None,
    ) -> None:
        self.parts = parts
        self.products = products
        self.callers = Callers(parts.home)
        self.view = RouteView(parts, products)
        self.choice = Choice(parts, self.view, self.callers.operator, now)
        self.admission = Admission(parts.traces, LimitsFile(parts.home), now)
        self.breakers = Breakers(now)
        self.metrics = Metrics(self.admission.load, self.view.live, parts.traces.counts)
        rule, load = self.admission.concurrency.rule, self.admission.load
        self.upstream = Upstream(parts, self.breakers, AdapterLoads(parts, self.breakers, rule, load, self.metrics))
        self.mirror = Mirror(parts, self.view, self.metrics, self.admission.load, now)
        self.filter = ContentFilter(parts.moderator)
        self.sampler = Sampler(parts, self.metrics)
        self.residents = Residents(parts, now)
        self.opinions = Opinions(parts, now)
        self.spans = Spans(telemetry)

    async def chat(self, request: Request) -> Response:
        began = time.monotonic()
        span = request.state.span = self.spans.begin(request.headers)
        tenant = self._caller(request)
        body = await read_body(request, "model", "the name of a product")
        product, route = self.choice.product(body["model"], tenant)
        request.state.product = product.name
        chosen = self.choice.first(product, route, body, tenant, request.headers.get(CHALLENGER))
        template = template_text(self.parts.store, product, chosen.goal.template)
        asked = upstream_request(body, chosen.goal, template)
        offered = [tool.name for tool in tools_of(body)]
        place = await self.admission.enter(
            product.tenant, most_tokens(asked), operator=tenant is None, gone=lambda: _gone(request)
        )
        drawn = (self.mirror.draw(product, route), self.sampler.draw(product, body)) if tenant is not None else ()
        mirrors = [each for each in drawn if each is not None]
        trace = Tracer(self.parts.traces, self.metrics, product, chosen, asked, offered, began, place, mirrors, span)
        try:
            await self.filter.check_prompt(product, asked)
            if asked["stream"]:
                wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
                return await self._stream(asked, wants_usage, trace)
            return await self._whole(asked, trace)
        except AssayError as error:
            denied = failure(error)
            trace.write(
                denied.status, str(error) if isinstance(error, ServerFailed) else type(error).__name__, denied.code
            )
            return error_response(denied.status, denied.code, str(denied), denied.headers | trace.headers)
        except Denied as denied:
            self.admission.refused(product.tenant, denied)
            span.call_failed(denied.code)
            place.leave()
            raise
        except BaseException:
            place.leave()
            raise

    async def feedback(self, request: Request) -> Response:
        tenant = self._caller(request)
        body = await read_body(request, "trace_id", "the id of an answer")
        check_feedback(body)
        if tenant is not None:
            await self.admission.count(tenant)
        open_for = [product.name for product in self.view.of_tenant(tenant) if product.keep]
        name, product = await asyncio.to_thread(self.opinions.take, body, tenant, open_for)
        for says in (body.get("rating"), *(field for field in ("correction", "label") if body.get(field))):
            if says is not None:
                self.metrics.said(product, says)
        return JSONResponse({"id": name, "trace_id": body["trace_id"]}, status_code=202)

    async def models(self, request: Request) -> Response:
        products = self.view.of_tenant(self._caller(request))
        cards = [{"id": p.name, "object": "model", "created": 0, "owned_by": p.tenant} for p in products]
        return JSONResponse({"object": "list", "data": cards})

    async def health(self) -> Response:
        """Well when requests can be told who answers; vLLM's own health is another program's."""
        try:
            self.view.refresh()
        except AssayError as error:
            return JSONResponse({"healthy": False, "detail": str(error)}, status_code=503)
        return JSONResponse({"healthy": True})

    async def scrape(self, request: Request) -> Response:
        """For Prometheus with the operator's key: to a proxy on this machine every client is a local one."""
        if self._caller(request) is not None:
            raise Denied(403, "not_allowed", "metrics are for the operator's key")
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Every error that ends a request before somebody is asked."""
        denied = failure(error)
        product = getattr(request.state, "product", "")
        self.metrics.denied(product, denied.status, denied.code)
        if (span := getattr(request.state, "span", None)) is not None:
            span.refused(product, denied.status, denied.code)
        return error_response(denied.status, denied.code, str(denied), denied.headers)

    async def load(self, request: Request) -> Response:
        """What goes on, for the operator."""
        if self._caller(request) is not None:
            raise Denied(403, "not_allowed", "the load is for the operator's key")
        return JSONResponse(self.admission.report() | {"resting": self.breakers.resting()})

    async def keep_reconciled(self, seconds: float) -> None:
        while True:
            for act in (self.residents.look, self._reconcile):
                try:
                    await asyncio.to_thread(act)
                except Exception:
                    log.exception("reconciling failed; trying again in %g seconds", seconds)
            with contextlib.suppress(AssayError):
                await asyncio.to_thread(self.view.refresh, True)
            await asyncio.sleep(seconds)

    async def keep_merged(self, seconds: float) -> None:
        """What is wrong is logged once, until it is another thing."""
        told = ""
        while True:
            try:
                for line in await asyncio.to_thread(place_merged, self.parts, self.products()):
                    log.info("reconciled: %s", line)
                told = ""
            except Exception as error:
                if str(error) != told:
                    log.exception("merged weights are not served; trying again every %g seconds", seconds)
                told = str(error)
            await asyncio.sleep(seconds)

    def _reconcile(self) -> None:
        for line in reconcile(self.parts, self.products()):
            log.info("reconciled: %s", line)

    async def close(self) -> None:
        await self.mirror.close()
        await self.upstream.close()
        await self.filter.close()
        await asyncio.to_thread(self.sampler.close)
        await asyncio.to_thread(self.residents.write)
        await asyncio.to_thread(self.parts.feedback.close)
        await asyncio.to_thread(self.parts.traces.close)
        await asyncio.to_thread(self.spans.close)

    def _caller(self, request: Request) -> str | None:
        """The tenant of this request's key; ``None`` for the operator. Raises `Denied`."""
        key = _key(request)
        if self.callers.is_operator(key):
            return None
        if (tenant := self.callers.tenant(key)) is None:
            raise Denied(401, "invalid_api_key", "this API key is not known: ask the operator for one")
        return tenant

    async def _ask(self, asked: dict[str, Any], trace: Tracer) -> tuple[httpx.Response, AsyncIterator[str]]:
        """The answer, or vLLM's refusal, of the first who can answer; no byte of it has reached the client. Raises
        `AssayError` where nobody can."""
        suspects: list[tuple[Digest | None, AssayError]] = []
        while True:
            goal = trace.goal
            try:
                found = await self.upstream.ask(goal, asked, trace.calls())
            except AdapterFailed as failed:
                trace.span.call_failed(type(failed.error).__name__)
                if goal.export:
                    log.warning("%s: %s: asked as an adapter", trace.id, failed.error)
                    self.breakers.failed(goal.export, failed.error)
                    trace.goal = goal.as_adapter()
                    continue
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
        try:
            answer = relay.whole(response.json(), trace.product.name, trace.provenance, trace.seen)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ServerFailed("the model server's answer cannot be read") from None
        if trace.seen.half:
            trace.write(422, "truncated", "answer_truncated")
            return error_response(422, "answer_truncated", truncation(trace.goal, asked), trace.headers)
        try:
            await self.filter.check_answer(trace.product, trace.seen.whole)
        except Denied as denied:
            trace.write(denied.status, str(denied), denied.code)
            return error_response(denied.status, denied.code, str(denied), denied.headers | trace.headers)
        trace.write(200)
        return JSONResponse(answer, headers=trace.headers)

    async def _stream(self, asked: dict[str, Any], wants_usage: bool, trace: Tracer) -> Response:
        response, lines = await self._ask(asked, trace)
        if response.status_code != 200:
            return _refused(response, trace)

        async def events() -> AsyncIterator[str]:
            ended = 499, "the client left", "client_left"
            held: list[str] = []
            try:
                async for event in relay.streamed(lines, trace.product.name, trace.provenance, wants_usage, trace.seen):
                    if self.filter.holds(trace.product):
                        held.append(event)
                    else:
                        yield event
                if trace.seen.finished:
                    await self.filter.check_answer(trace.product, trace.seen.whole)
                ended = (200, "", "") if trace.seen.finished else CUT_OFF
                if trace.seen.half:
                    ended = 422, "truncated", "answer_truncated"
            except httpx.TransportError:
                ended = CUT_OFF
            except Denied as denied:
                ended = denied.status, str(denied), denied.code
            finally:
                trace.write(*ended)
                await response.aclose()
            if ended[0] == 200:
                for event in held:
                    yield event
            if ended[0] in (403, 503):
                kept = error_body("server_error" if ended[0] == 503 else "invalid_request_error", ended[2], ended[1])
                yield f"data: {json.dumps(kept)}\n\n"
            if ended[0] == 502:
                cut_off = error_body("server_error", "cut_off", "the answer was cut off: ask again")
                yield f"data: {json.dumps(cut_off)}\n\n"
            if ended[0] == 422:
                half = error_body("invalid_request_error", "answer_truncated", truncation(trace.goal, asked))
                yield f"data: {json.dumps(half)}\n\n"

        begun = events()
        first = await anext(begun)  # one that had not begun would not end either, and keep its place
        return StreamingResponse(followed_by(first, begun), media_type="text/event-stream", headers=trace.headers)


def _refused(response: httpx.Response, trace: Tracer) -> Response:
    """vLLM's reason for a request that cannot be answered."""
    trace.write(400, "refused by the model server", "invalid_request")
    return error_response(400, "invalid_request", refusal_of(response), trace.headers)


async def _gone(request: Request) -> None:
    """Returns when the client has left. The body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Denied(401, "invalid_api_key", "an API key is needed: Authorization: Bearer KEY")
    return key.strip()
