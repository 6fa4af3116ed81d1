"""Asking vLLM: the adapter is loaded before the request, and a server that just restarted gets a second chance."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from data_contracts.digests import Digest
from data_contracts.errors import Missing, Refused, Tampered, Unavailable
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import Target, base_of
from pipelines.stages.serve.breaker import AdapterFailed, Breakers
from pipelines.stages.serve.errors import ServerFailed

HEAL_SECONDS = 150

log = logging.getLogger(__name__)


class Upstream:
    """One attempt, then one more after the adapter was loaded again; nothing has reached the client by then.

    Raises `AdapterFailed` where another adapter, or the base, may still answer, `Unavailable` where nobody can."""

    def __init__(self, parts: Parts, breakers: Breakers) -> None:
        self.parts = parts
        self.breakers = breakers
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(300, connect=5, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
            verify=False,  # plain HTTP on this machine: no certificates to read
        )
        self._names: dict[Digest | None, str] = {}
        self._healing = asyncio.Lock()
        self._healed: Counter[Digest | None] = Counter()

    async def ask(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        """The complete answer, or a stream's once its first line is there, with all of its lines: close that response.
        Or vLLM's refusal."""
        self.breakers.check(goal.adapter)
        response, lines = await self._twice(goal, request, headers)
        if response.status_code == 200:
            self.breakers.answered(goal.adapter)
        return response, lines

    async def close(self) -> None:
        await self.client.aclose()

    async def _twice(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        seen = self._healed[goal.adapter]
        try:
            response, lines = await self._once(goal, request, headers)
            if response.status_code != 404:
                return response, lines
            await response.aclose()
        except httpx.TransportError as error:
            log.warning("vLLM did not answer (%s); asking once more", type(error).__name__)
        await self._heal(goal, seen)
        try:
            response, lines = await self._once(goal, request, headers)
        except httpx.TransportError as error:
            unreached = Unavailable(f"the model server cannot be reached ({type(error).__name__})")
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise unreached from error
            raise AdapterFailed(unreached, suspect=True) from error
        if response.status_code == 404:
            await response.aclose()
            raise AdapterFailed(Unavailable("the model server does not hold the live adapter"), suspect=True)
        return response, lines

    async def _once(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        body = dict(request) | {"model": await self._served(goal)}
        outgoing = self.client.build_request(
            "POST", f"{self.parts.server.url()}/chat/completions", json=body, headers=dict(headers)
        )
        response = await self.client.send(outgoing, stream=True)
        try:
            if not request["stream"] or response.status_code != 200:
                await response.aread()
            if response.status_code >= 500:
                raise AdapterFailed(ServerFailed("the model server failed"), suspect=True)
            if not request["stream"] or response.status_code != 200:
                return response, _nothing()
            lines = response.aiter_lines()
            first = await anext(lines, "")
            if not first or first.startswith('data: {"error"'):
                raise AdapterFailed(ServerFailed("the model server failed"), suspect=True)
        except BaseException:
            await response.aclose()
            raise
        return response, followed_by(first, lines)

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
            except AdapterFailed as failed:
                self.breakers.failed(goal.adapter, failed.error)
                raise
            self._names[goal.adapter] = name
            self._healed[goal.adapter] += 1

    def _load(self, goal: Target) -> str:
        server = self.parts.server
        running = server.base()
        if running is not None and running.digest != goal.base:
            raise Refused(f"the live release needs base {goal.base}, and another base is served")
        server.ensure_running(base_of(self.parts.store, goal.base))
        if goal.adapter is None:
            return server.base_name()
        try:
            return server.ensure_loaded(goal.adapter)
        except (Refused, Tampered, Missing) as error:
            raise AdapterFailed(error) from error


async def followed_by(first: str, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for line in lines:
        yield line


async def _nothing() -> AsyncIterator[str]:
    return
    yield
