"""How much reaches vLLM at once: so many requests, a queue of so many more, each of which waits so long at most."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pipelines.stages.serve.errors import Denied, over_limit
from pipelines.stages.serve.limits import GatewayLimits

Gone = Callable[[], Awaitable[None]]
"""Returns once the client has gone away."""


@dataclass
class Load:
    """What goes on in the gateway: requests that vLLM answers, requests that wait, those in flight that wait for their
    adapter, clients that left while they waited, refusals by tenant and limit."""

    in_flight: int = 0
    queued: int = 0
    cold: int = 0
    left: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)


class Concurrency:
    """First come, first served."""

    def __init__(self, rule: GatewayLimits) -> None:
        self.rule = rule
        self.load = Load()
        self._free = asyncio.Semaphore(rule.in_flight)

    async def enter(self, gone: Gone, at_once: bool = False) -> None:
        """Wait for a place, or go ``at_once`` on top of them; `leave` in the same way. Raises `Denied`: 429 without a
        place, 499 for a client that left."""
        if not at_once:
            await (self._wait(gone) if self._free.locked() else self._free.acquire())
        self.load.in_flight += 1

    def leave(self, at_once: bool = False) -> None:
        self.load.in_flight -= 1
        if not at_once:
            self._free.release()

    async def _wait(self, gone: Gone) -> None:
        if self.load.queued >= self.rule.queue:
            raise over_limit("queue", "overloaded", f"{self.rule.queue} requests wait already")
        entered, left = asyncio.ensure_future(self._free.acquire()), asyncio.ensure_future(gone())
        self.load.queued += 1
        try:
            await asyncio.wait({entered, left}, timeout=self.rule.wait_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.load.queued -= 1
            left.cancel()
            entered.cancel()  # gives its place back where it had just got one; nothing happens to one that is done
        if entered.done():
            return
        if left.done():
            self.load.left += 1
            raise Denied(499, "client_left", "the client left while its request waited")
        raise over_limit("wait_seconds", "overloaded", f"no place became free within {self.rule.wait_seconds:g} s")
