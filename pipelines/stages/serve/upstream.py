"""Asking vLLM: the adapter is loaded before the request, and a server that just restarted gets a second chance."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from data_contracts.digests import Digest
from data_contracts.errors import Refused, Unavailable
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import Target, base_of

HEAL_SECONDS = 150

log = logging.getLogger(__name__)


class Upstream:
    """One attempt, then one more after the adapter was loaded again; nothing has reached the client by then."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(300, connect=5, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
            verify=False,  # plain HTTP on this machine: no certificates to read
        )
        self._names: dict[Digest | None, str] = {}
        self._healing = asyncio.Lock()
        self._healed: Counter[Digest | None] = Counter()

    async def whole(self, goal: Target, request: Mapping[str, Any], trace_id: str) -> httpx.Response:
        """The complete answer, whatever its status. Raises `Unavailable`."""
        response, _ = await self._ask(goal, request, trace_id, stream=False)
        return response

    async def stream(
        self, goal: Target, request: Mapping[str, Any], trace_id: str
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        """The answer once its first line is there, and all of its lines. Close the response. Raises `Unavailable`."""
        return await self._ask(goal, request, trace_id, stream=True)

    async def close(self) -> None:
        await self.client.aclose()

    async def _ask(
        self, goal: Target, request: Mapping[str, Any], trace_id: str, stream: bool
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        seen = self._healed[goal.adapter]
        try:
            response, lines = await self._once(goal, request, trace_id, stream)
            if response.status_code != 404:
                return response, lines
            await response.aclose()
        except httpx.TransportError as error:
            log.warning("vLLM did not answer (%s); asking once more", type(error).__name__)
        await self._heal(goal, seen)
        try:
            response, lines = await self._once(goal, request, trace_id, stream)
        except httpx.TransportError as error:
            raise Unavailable(f"the model server cannot be reached ({type(error).__name__})") from error
        if response.status_code == 404:
            await response.aclose()
            raise Unavailable("the model server does not hold the live adapter")
        return response, lines

    async def _once(
        self, goal: Target, request: Mapping[str, Any], trace_id: str, stream: bool
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        body = dict(request) | {"model": await self._served(goal)}
        headers = {"x-request-id": trace_id.removeprefix("chatcmpl-")}
        outgoing = self.client.build_request(
            "POST", f"{self.parts.server.url()}/chat/completions", json=body, headers=headers
        )
        response = await self.client.send(outgoing, stream=True)
        try:
            if not stream or response.status_code != 200:
                await response.aread()
                return response, _nothing()
            lines = response.aiter_lines()
            first = await anext(lines, "")
        except BaseException:
            await response.aclose()
            raise
        return response, _again(first, lines)

    async def _served(self, goal: Target) -> str:
        if goal.adapter not in self._names:
            await self._heal(goal, self._healed[goal.adapter])
        return self._names[goal.adapter]

    async def _heal(self, goal: Target, seen: int) -> None:
        """Have the base served and the adapter loaded. Requests that failed together heal once."""
        async with self._healing:
            if self._healed[goal.adapter] != seen:
                return
            try:
                name = await asyncio.wait_for(asyncio.to_thread(self._load, goal), HEAL_SECONDS)
            except TimeoutError as error:
                raise Unavailable("the model server is starting") from error
            self._names[goal.adapter] = name
            self._healed[goal.adapter] += 1

    def _load(self, goal: Target) -> str:
        server = self.parts.server
        running = server.base()
        if running is not None and running.digest != goal.base:
            raise Refused(f"the live release needs base {goal.base}, and another base is served")
        server.ensure_running(base_of(self.parts.store, goal.base))
        return server.base_name() if goal.adapter is None else server.ensure_loaded(goal.adapter)


async def _again(first: str, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for line in lines:
        yield line


async def _nothing() -> AsyncIterator[str]:
    return
    yield
