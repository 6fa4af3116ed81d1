"""Asking vLLM: an adapter that it does not hold is loaded, and a server that just restarted gets a second chance."""

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from data_contracts.errors import Unavailable
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import Target
from pipelines.stages.serve.breaker import AdapterFailed, Breakers
from pipelines.stages.serve.errors import ServerFailed
from pipelines.stages.serve.loading import AdapterLoads

LOADS = 3
"""Of an adapter for one request, at most."""

log = logging.getLogger(__name__)


class Upstream:
    """One attempt, and more once the adapter was loaded; nothing has reached the client by then.

    Raises `AdapterFailed` where another adapter, or the base, may still answer, `Unavailable` where nobody can,
    `Denied` where too many wait for adapters."""

    def __init__(self, parts: Parts, breakers: Breakers, loads: AdapterLoads) -> None:
        self.parts, self.breakers, self.loads = parts, breakers, loads
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(300, connect=5, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=False,
            verify=False,  # plain HTTP on this machine: no certificates to read
        )

    async def ask(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        """The complete answer, or a stream's once its first line is there, with all of its lines: close that response.
        Or vLLM's refusal."""
        who = goal.export or goal.adapter
        self.breakers.check(who)
        asked = self._merged if goal.export else self._loaded
        response, lines = await asked(goal, request, headers)
        if response.status_code == 200:
            self.breakers.answered(who)
        return response, lines

    async def close(self) -> None:
        await self.client.aclose()

    async def _merged(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        """Once: the same release answers as an adapter without a wait."""
        try:
            response, lines = await self._once(goal, request, headers)
        except httpx.TransportError as error:
            raise AdapterFailed(
                Unavailable(f"the server of merged weights cannot be reached ({type(error).__name__})")
            ) from error
        if response.status_code == 404:
            await response.aclose()
            raise AdapterFailed(Unavailable("the server of merged weights holds others"))
        return response, lines

    async def _loaded(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        """Again after each load: another adapter may push this one out before its request has come."""
        for attempt in range(1 + LOADS):
            seen = self.loads.count(goal.adapter)
            try:
                response, lines = await self._once(goal, request, headers)
                if response.status_code != 404:
                    return response, lines
                await response.aclose()
            except httpx.TransportError as error:
                if attempt > 0:
                    raise _unreached(error) from error
                log.warning("vLLM did not answer (%s); asking once more", type(error).__name__)
            if attempt < LOADS:
                await self.loads.wait(goal, seen)
        raise AdapterFailed(Unavailable("the model server does not hold the live adapter"), suspect=True)

    async def _once(
        self, goal: Target, request: Mapping[str, Any], headers: Mapping[str, str]
    ) -> tuple[httpx.Response, AsyncIterator[str]]:
        url = self.parts.merged.url() if goal.merged else self.parts.server.url()
        body = dict(request) | {"model": goal.merged or self._name(goal)}
        outgoing = self.client.build_request("POST", f"{url}/chat/completions", json=body, headers=dict(headers))
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

    def _name(self, goal: Target) -> str:
        return self.parts.server.base_name() if goal.adapter is None else self.parts.server.name_of(goal.adapter)


def _unreached(error: httpx.TransportError) -> Unavailable | AdapterFailed:
    """The server's own fault where it takes no connection; else the adapter may have brought it down."""
    unreached = Unavailable(f"the model server cannot be reached ({type(error).__name__})")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return unreached
    return AdapterFailed(unreached, suspect=True)


async def followed_by(first: str, lines: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for line in lines:
        yield line


async def _nothing() -> AsyncIterator[str]:
    return
    yield
