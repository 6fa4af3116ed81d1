"""The gateway: OpenAI's chat API in front of vLLM. A key names a tenant, ``model`` names one of its products, the audit
log names the release that answers; every answer names what it came from."""

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from data_contracts.errors import AssayError, BadInput, Missing
from data_contracts.traces import Trace
from evals.refusals import refuses
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve import relay
from pipelines.stages.serve.answer import Target, has_form, target, template_text, tools_of, upstream_request
from pipelines.stages.serve.cohort import cohort, is_challenged
from pipelines.stages.serve.errors import (
    RETRY_AFTER,
    Denied,
    error_body,
    error_response,
    failure,
    refusal_of,
    truncation,
)
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import Route
from pipelines.stages.serve.sunset import ended, notice
from pipelines.stages.serve.tenants import Callers
from pipelines.stages.serve.upstream import Upstream
from pipelines.stages.serve.view import RouteView

CHALLENGER = "x-assay-challenger"

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
    the clock that sunsets go by."""
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
    app.add_api_route("/healthz", gateway.health, methods=["GET"], response_model=None)
    return app


class Gateway:
    def __init__(self, parts: Parts, products: Callable[[], Sequence[Product]], now: Callable[[], datetime]) -> None:
        self.parts = parts
        self.products = products
        self.now = now
        self.callers = Callers(parts.home)
        self.view = RouteView(parts, products)
        self.upstream = Upstream(parts)

    async def chat(self, request: Request) -> Response:
        began = time.monotonic()
        try:
            body = await _body(request)
            product, goal, notices = self._goal(request, body)
            template = template_text(self.parts.store, product, goal.template)
            asked = upstream_request(body, goal, template)
            trace = _Tracer(self.parts, product, goal, asked, [tool.name for tool in tools_of(body)], began, notices)
        except Denied as denied:
            return error_response(denied.status, denied.code, str(denied), denied.headers)
        except AssayError as error:
            return failure(error)
        try:
            if asked["stream"]:
                wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))
                return await self._stream(product, goal, asked, wants_usage, trace)
            return await self._whole(product, goal, asked, trace)
        except AssayError as error:
            trace.write(503, type(error).__name__)
            return failure(error, trace.headers)

    async def models(self, request: Request) -> Response:
        try:
            products = self.view.of_tenant(None if self._is_operator(request) else self._tenant(request))
        except Denied as denied:
            return error_response(denied.status, denied.code, str(denied))
        except AssayError as error:
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

    def _goal(self, request: Request, body: Mapping[str, Any]) -> tuple[Product, Target, dict[str, str]]:
        """Who answers this request, decided once, and the headers of its deprecation, if any. Raises `Denied`."""
        name = str(body["model"])
        operator = self._is_operator(request)
        tenant = None if operator else self._tenant(request)
        try:
            product, route = self.view.route(name)
        except Missing:
            raise Denied(404, "model_not_found", f"there is no product {name!r} for this key") from None
        if tenant is not None and product.tenant != tenant:
            raise Denied(404, "model_not_found", f"there is no product {name!r} for this key")
        challenger = request.headers.get(CHALLENGER)
        if challenger is not None:
            asked = _challenger(challenger, route, operator)
            return product, target(self.parts, product, asked, "challenger"), {}
        who = None
        if tenant is not None and route.share > 0 and (rival := route.live_challenger()):
            who = cohort(self.callers.operator, rival, tenant, body.get("user"))
            if is_challenged(who, route.share):
                return product, target(self.parts, product, rival, "challenger").of_cohort(who), {}
        standing = self.view.standing(route.champion)
        notices = notice(standing)
        if route.champion is not None and (why := ended(name, route.champion, standing, self.now())):
            raise Denied(410, "release_sunset", why, notices)
        return product, target(self.parts, product, route.champion, "champion").of_cohort(who), notices

    def _is_operator(self, request: Request) -> bool:
        return self.callers.is_operator(_key(request))

    def _tenant(self, request: Request) -> str:
        tenant = self.callers.tenant(_key(request))
        if tenant is None:
            raise Denied(401, "invalid_api_key", "this API key is not known: ask the operator for one")
        return tenant

    async def _whole(self, product: Product, goal: Target, asked: dict[str, Any], trace: "_Tracer") -> Response:
        response = await self.upstream.whole(goal, asked, trace.id)
        if response.status_code != 200:
            return trace.refused(response)
        answer = relay.whole(response.json(), product.name, trace.provenance, trace.seen)
        if trace.seen.half:
            trace.write(422, "truncated")
            return error_response(422, "answer_truncated", truncation(goal, asked), trace.headers)
        trace.write(200)
        return JSONResponse(answer, headers=trace.headers)

    async def _stream(
        self, product: Product, goal: Target, asked: dict[str, Any], wants_usage: bool, trace: "_Tracer"
    ) -> Response:
        response, lines = await self.upstream.stream(goal, asked, trace.id)
        if response.status_code != 200:
            return trace.refused(response)

        async def events() -> AsyncIterator[str]:
            status, reason = 499, "the client left"
            try:
                async for event in relay.streamed(lines, product.name, trace.provenance, wants_usage, trace.seen):
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
                half = error_body("invalid_request_error", "answer_truncated", truncation(goal, asked))
                yield f"data: {json.dumps(half)}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers=trace.headers)


class _Tracer:
    """One request's trace id, provenance and, at its end, its trace."""

    def __init__(
        self,
        parts: Parts,
        product: Product,
        goal: Target,
        asked: dict[str, Any],
        offered: list[str],
        began: float,
        notices: dict[str, str],
    ) -> None:
        self.parts, self.product, self.goal, self.asked, self.began = parts, product, goal, asked, began
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.provenance = goal.provenance(self.id)
        self.headers = {
            f"x-assay-{k.replace('_', '-')}": v or "none" for k, v in self.provenance.items() if k != "reason"
        } | notices
        self.seen = relay.Answered(offered, form=has_form(asked))

    def write(self, status: int, reason: str = "") -> None:
        valid, tool = self.seen.judged() if status == 200 else (False if status == 422 else None, None)
        watched = status == 200 and self.goal.cohort is not None
        self.parts.traces.add(
            Trace(
                trace_id=self.id,
                time=datetime.now(UTC),
                tenant=self.product.tenant,
                product=self.product.name,
                route=self.goal.route,
                release=self.goal.release,
                base=self.goal.base,
                adapter=self.goal.adapter,
                template=self.goal.template,
                status=status,
                reason=reason or self.goal.reason,
                prompt_chars=sum(len(message["content"]) for message in self.asked["messages"]),
                prompt_tokens=self.seen.prompt_tokens,
                completion_tokens=self.seen.completion_tokens,
                latency_ms=(time.monotonic() - self.began) * 1000,
                json_valid=valid,
                tool=tool,
                cohort=self.goal.cohort,
                refused=refuses(self.seen.words()) if watched else None,
            )
        )

    def refused(self, response: httpx.Response) -> Response:
        """vLLM said no: its reason for a request that cannot be answered, ours for a failure."""
        if response.status_code < 500:
            self.write(400, "refused by the model server")
            return error_response(400, "invalid_request", refusal_of(response), self.headers)
        self.write(502, "the model server failed")
        return error_response(
            502, "model_server_failed", "the model server failed: ask again", self.headers, RETRY_AFTER
        )


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


def _challenger(asked: str, route: Route, operator: bool) -> str:
    if not operator:
        raise Denied(403, "not_allowed", f"{CHALLENGER} is for this installation's own canary")
    if asked != route.live_challenger():
        raise Denied(409, "not_the_challenger", f"{asked} is not the challenger of {route.product} now")
    return asked
