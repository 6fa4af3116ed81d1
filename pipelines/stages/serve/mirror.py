"""Shadowing: a share of the live requests, each once its answer has ended, is asked of another release too. Nobody gets
that answer; what is kept of it is whether it was JSON, how long it took, and whether it was the same.

Clients notice nothing: whatever the mirror does, it does beside their requests, with connections and breakers of its
own, and without a place among theirs.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from data_contracts.digests import Digest
from data_contracts.errors import AssayError
from data_contracts.traces import ShadowTrace, Trace
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve import relay
from pipelines.stages.serve.answer import target, template_text
from pipelines.stages.serve.breaker import AdapterFailed, Breakers
from pipelines.stages.serve.concurrency import Load
from pipelines.stages.serve.limits import GatewayLimits
from pipelines.stages.serve.loading import AdapterLoads
from pipelines.stages.serve.metrics import Metrics
from pipelines.stages.serve.routes import Route
from pipelines.stages.serve.upstream import Upstream
from pipelines.stages.serve.view import RouteView

IN_FLIGHT = 4
"""Mirrored requests at once, of all products: above it they are dropped."""
SECONDS = 60.0
"""That one of them may take."""
LOOK_S = 0.2
"""How often it is asked meanwhile whether shadowing goes on."""

log = logging.getLogger(__name__)


class Live(NamedTuple):
    """A request as vLLM got it, the answer that its client got, and how long that took."""

    asked: Mapping[str, Any]
    trace: Trace
    seen: relay.Answered
    ms: float


class Mirror:
    """``load`` tells whether clients wait: nothing is mirrored then."""

    def __init__(
        self, parts: Parts, view: RouteView, metrics: Metrics, load: Load, now: Callable[[], datetime]
    ) -> None:
        self.parts, self.view, self.metrics, self.load = parts, view, metrics, load
        breakers = Breakers(now)
        self.upstream = Upstream(parts, breakers, AdapterLoads(parts, breakers, GatewayLimits(), Load(), metrics))
        self._running: set[asyncio.Task[None]] = set()
        self._failing: set[Digest] = set()

    def draw(self, product: Product, route: Route) -> Callable[[Live], None] | None:
        """Whether a request is mirrored, decided when it begins: what is to be called at its end."""
        if route.shadow is None or random.random() >= route.shadow_share:
            return None
        return partial(self._offer, product, route.shadow)

    async def close(self) -> None:
        """Stop what runs."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self.upstream.close()

    def _offer(self, product: Product, shadow: Digest, live: Live) -> None:
        """Mirror it, unless there are too many or clients wait. Returns at once."""
        if live.trace.release == shadow:
            return
        if len(self._running) >= IN_FLIGHT or self.load.queued:
            self.metrics.mirrored(product.name, "dropped")
            return
        task = asyncio.create_task(self._mirror(product, shadow, live))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _mirror(self, product: Product, shadow: Digest, live: Live) -> None:
        asking = asyncio.create_task(self._ask(product, shadow, live))
        try:
            while not asking.done():
                if not self._wanted(product, shadow):
                    self.metrics.mirrored(product.name, "stopped")
                    return
                await asyncio.wait({asking}, timeout=LOOK_S)
            seen, ms = asking.result()
            self._failing.discard(shadow)
        except asyncio.CancelledError:
            self.metrics.mirrored(product.name, "stopped")
            raise
        except Exception as error:  # nobody waits for it: it is counted, and said once
            seen, ms = None, None
            if shadow not in self._failing:
                log.warning("the shadow %s of %s does not answer (%r)", shadow, product.name, error)
            self._failing.add(shadow)
        finally:
            asking.cancel()
        self.metrics.mirrored(product.name, "failed" if seen is None else "answered")
        self.parts.traces.add_shadow(_compared(live, shadow, seen, ms))

    def _wanted(self, product: Product, shadow: Digest) -> bool:
        try:
            return self.view.route(product.name)[1].shadow == shadow
        except AssayError:
            return False

    async def _ask(self, product: Product, shadow: Digest, live: Live) -> tuple[relay.Answered, float]:
        """As a whole answer, whatever the client asked for; and its milliseconds."""
        goal = await asyncio.to_thread(target, self.parts, product, shadow, "challenger")
        template = await asyncio.to_thread(template_text, self.parts.store, product, goal.template)
        asked = {name: value for name, value in live.asked.items() if name != "stream_options"}
        asked |= {"stream": False, "chat_template": template}
        seen = relay.Answered(live.seen.offered, form=live.seen.form)
        began = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS):
                name = live.trace.trace_id.replace("chatcmpl", "shadow")
                response, _ = await self.upstream.ask(goal, asked, {"x-request-id": name})
        except AdapterFailed as failed:
            if failed.suspect:
                self.upstream.breakers.failed(goal.adapter, failed.error)
            raise
        response.raise_for_status()
        relay.whole(response.json(), product.name, {}, seen)
        return seen, (time.monotonic() - began) * 1000


def _compared(live: Live, shadow: Digest, seen: relay.Answered | None, ms: float | None) -> ShadowTrace:
    drawn = live.asked["temperature"] > 0
    return ShadowTrace(
        trace_id=live.trace.trace_id,
        time=datetime.now(UTC),
        product=live.trace.product,
        live=live.trace.release,
        shadow=shadow,
        status=502 if seen is None else 422 if seen.half else 200,
        equal=None if seen is None or drawn else "".join(seen.text) == "".join(live.seen.text),
        live_json_valid=bool(live.trace.json_valid),
        json_valid=None if seen is None else seen.judged()[0],
        live_ms=live.ms,
        ms=ms,
    )
