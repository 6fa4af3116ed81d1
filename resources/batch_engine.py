"""Row work on local processes: the same results, in the same order, whatever their number."""

import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from typing import Any, TypeVar

from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.data.protocols import BatchEngine

Batch = TypeVar("Batch")
Result = TypeVar("Result")

_AHEAD = 2
"""Batches in flight for each worker: one being worked on, one waiting. It bounds the memory."""


def open_engine(name: str) -> BatchEngine:
    """The engine of the setting ``ASSAY_ENGINE``: ``local`` or ``ray``, and ``:N`` for the number of workers."""
    kind, colon, number = name.partition(":")
    if kind not in ("local", "ray") or (colon and not re.fullmatch("[1-9][0-9]*", number)):
        raise BadInput(
            f"ASSAY_ENGINE is {name!r}: give local, local:N (processes), ray or ray:N (workers). A running Ray cluster "
            "is named by RAY_ADDRESS"
        )
    if kind == "local":
        return LocalBatchEngine(int(number or 1))
    from resources.ray_engine import RayBatchEngine

    return RayBatchEngine(int(number) if number else None)


class LocalBatchEngine:
    """``workers`` processes; with one, the work is done in this process."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def map(self, work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        """``work`` of each batch, in order. Raises `Unavailable` when a worker dies, and what ``work`` raises."""
        if self.workers == 1:
            yield from map(work, batches)
            return
        # Spawned, not forked: libraries that hold threads do not survive a fork.
        pool = ProcessPoolExecutor(self.workers, mp_context=get_context("spawn"), initializer=_take, initargs=(work,))
        try:
            yield from _in_order(pool, iter(batches), self.workers * _AHEAD)
        except BrokenProcessPool as error:
            raise Unavailable(
                "a worker process died (out of memory, or ended from outside); nothing was written. Try again with "
                "fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterator[Any], ahead: int) -> Iterator[Any]:
    flying: deque[Future[Any]] = deque(pool.submit(_do, batch) for batch in islice(batches, ahead))
    while flying:
        yield flying.popleft().result()
        flying.extend(pool.submit(_do, batch) for batch in islice(batches, 1))


_work: Callable[[Any], Any]


def _take(work: Callable[[Any], Any]) -> None:
    """In a worker, once: keep the work, with what it loads; leave Ctrl-C to the parent."""
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work = work


def _do(batch: Any) -> Any:
    return _work(batch)
