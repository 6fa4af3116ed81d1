"""Adapters that are asked for and not loaded: one after another, each once for all who wait for it.

Only who waits for an adapter comes here; requests for loaded ones pass by.
"""

import asyncio
import time
from collections import Counter

from data_contracts.digests import Digest
from data_contracts.errors import Missing, Refused, Tampered, Unavailable
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import Target, base_of
from pipelines.stages.serve.breaker import AdapterFailed, Breakers
from pipelines.stages.serve.concurrency import Load
from pipelines.stages.serve.errors import over_limit
from pipelines.stages.serve.limits import GatewayLimits
from pipelines.stages.serve.metrics import Metrics

WAIT_SECONDS = 150.0
"""At most, for an adapter: vLLM may have to start."""


class AdapterLoads:
    def __init__(self, parts: Parts, breakers: Breakers, rule: GatewayLimits, load: Load, metrics: Metrics) -> None:
        self._parts, self._breakers, self._rule, self._load, self._metrics = parts, breakers, rule, load, metrics
        self._turn = asyncio.Lock()
        self._going: dict[Digest | None, asyncio.Task[None]] = {}
        self._done: Counter[Digest | None] = Counter()

    def count(self, adapter: Digest | None) -> int:
        """How often it was loaded."""
        return self._done[adapter]

    async def wait(self, goal: Target, seen: int) -> None:
        """Until ``goal`` was loaded more often than ``seen``. The canary's own requests wait whoever else does.

        Raises `Denied` (429) where too many wait, `AdapterFailed` where it cannot be loaded, `Unavailable` where that
        takes too long."""
        if self._done[goal.adapter] != seen:
            return
        if self._load.cold >= self._rule.cold_queue and not goal.probes:
            raise over_limit("cold_queue", "overloaded", f"{self._load.cold} requests wait for adapters to be loaded")
        began = time.monotonic()
        self._load.cold += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.shield(self._going.get(goal.adapter) or self._begin(goal))
        except TimeoutError as error:
            raise Unavailable(
                f"the adapter was not loaded within {WAIT_SECONDS:g} s: the model server is starting, or has no slot"
            ) from error
        finally:
            self._load.cold -= 1
            self._metrics.waited(goal.product, time.monotonic() - began)

    def _begin(self, goal: Target) -> asyncio.Task[None]:
        task = self._going[goal.adapter] = asyncio.create_task(self._in_turn(goal))
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # who waited may have gone
        return task

    async def _in_turn(self, goal: Target) -> None:
        try:
            async with self._turn:
                began = time.monotonic()
                await asyncio.to_thread(self._ensure, goal)
        except AdapterFailed as failed:
            self._breakers.failed(goal.adapter, failed.error)
            self._metrics.not_loaded(goal.product)
            raise
        except BaseException:
            self._metrics.not_loaded(goal.product)
            raise
        else:
            self._done[goal.adapter] += 1
            self._metrics.loaded(goal.product, time.monotonic() - began)
        finally:
            del self._going[goal.adapter]

    def _ensure(self, goal: Target) -> None:
        """Have the base served and the adapter loaded."""
        server = self._parts.server
        running = server.base()
        if running is not None and running.digest != goal.base:
            raise Refused(f"the live release needs base {goal.base}, and another base is served")
        server.ensure_running(base_of(self._parts.store, goal.base))
        if goal.adapter is None:
            return
        try:
            server.ensure_loaded(goal.adapter)
        except (Refused, Tampered, Missing) as error:
            raise AdapterFailed(error) from error
