"""A share of the answers is kept in words, where the product says so: sealed, and on its way to the collector.

Clients notice nothing: it is sealed beside their requests, by one thread, and left out when that one cannot keep up.
"""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import BoundedSemaphore
from typing import Any

from data_contracts.digests import hex_of, sha256_bytes
from data_contracts.errors import AssayError
from data_contracts.records import Message
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import tools_of
from pipelines.stages.serve.metrics import Metrics
from pipelines.stages.serve.mirror import Live
from pipelines.stages.serve.raw_text import RawExchange, sealed

WAITING = 256
"""Exchanges that may wait to be sealed: above it they are dropped."""

log = logging.getLogger(__name__)


def in_sample(trace_id: str, share: float) -> bool:
    """Follows from the id alone, so that it can be told later which answers were to be kept."""
    return int(hex_of(sha256_bytes(trace_id.encode()))[:8], 16) < share * 2**32


class Sampler:
    def __init__(self, parts: Parts, metrics: Metrics) -> None:
        self.parts, self.metrics = parts, metrics
        self._thread = ThreadPoolExecutor(1, "sampler")
        self._room = BoundedSemaphore(WAITING)

    def draw(self, product: Product, body: Mapping[str, Any]) -> Callable[[Live], None] | None:
        """What is to be called at the end of a request, if anything. ``store: false`` in it keeps it out."""
        if product.keep is None or not product.keep.share or body.get("store") is False:
            return None
        user = body.get("user")
        return partial(self._offer, product, body, user if isinstance(user, str) and user else None)

    def close(self) -> None:
        """Once what waits is sealed."""
        self._thread.shutdown()

    def _offer(self, product: Product, body: Mapping[str, Any], user: str | None, live: Live) -> None:
        """Returns at once."""
        share = product.keep.share if product.keep else 0
        if live.trace.status != 200 or not in_sample(live.trace.trace_id, share):
            return
        if not self._room.acquire(blocking=False):
            self.metrics.kept(product.name, "dropped")
            return
        self._thread.submit(self._seal, product, body, user, live)

    def _seal(self, product: Product, body: Mapping[str, Any], user: str | None, live: Live) -> None:
        trace = live.trace
        try:
            raw = RawExchange(
                trace_id=trace.trace_id,
                release=trace.release,
                messages=tuple(Message(role=m["role"], content=m["content"]) for m in live.asked["messages"]),
                tools=tools_of(body),
                answer="".join(live.seen.text),
                user=user,
            )
            closed = sealed(self.parts.tenant_keys, raw, trace.trace_id, trace.time, trace.tenant, product.name)
            taken = self.parts.feedback.add_sealed(closed)
        except (AssayError, OSError) as error:
            log.warning("an exchange of %s is not kept: %s", product.name, error)
            taken = False
        finally:
            self._room.release()
        self.metrics.kept(product.name, "sealed" if taken else "failed")
