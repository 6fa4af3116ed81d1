"""Row work on Ray Data, here or on a cluster's machines: the same results, in the same order, as on local processes.

Batches go in through an actor that holds those without a result yet: only a few are ahead, and a task that Ray starts
again finds them again. A pool of actors works on them, each with the work loaded once. A worker that dies is replaced
and what it had is done again, which changes nothing: work has no effect but its result.
"""

import asyncio
import logging
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import chain, count, islice, repeat
from typing import TYPE_CHECKING, Any, TypeVar

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Unavailable
from resources.ray_cluster import check_environment, connect, this_environment

if TYPE_CHECKING:
    import pyarrow as pa

Batch = TypeVar("Batch")
Result = TypeVar("Result")

_AHEAD = 2
"""Batches in flight for each worker: one being worked on, one waiting. It bounds the memory."""
_TRIES = 3
"""Workers that one batch may cost before it is given up."""


class RayBatchEngine:
    """``workers`` actors, as many as the cluster has processors unless told. The cluster is the one that
    ``RAY_ADDRESS`` names, else one on this machine, which starts with the first batch and ends with this process."""

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    def map(self, work: Callable[[Batch], Result], batches: Iterable[Batch]) -> Iterator[Result]:
        """``work`` of each batch, in order. Raises `Unavailable` when the cluster cannot be reached or is lost, or a
        batch ends the worker each time; and what ``work`` raises."""
        source = iter(batches)
        first = list(islice(source, 1))
        if not first:
            return
        connect(self.workers, "ASSAY_ENGINE=local")
        from ray.exceptions import RayError

        try:
            yield from _mapped(work, chain(first, source), self.workers or _processors())
        except RayError as error:
            raise Unavailable(
                f"Ray lost a part of its cluster that it could not replace ({type(error).__name__}); nothing was "
                "written. Look after the cluster and try again, or set ASSAY_ENGINE=local"
            ) from error


def _mapped(work: Callable[[Any], Any], batches: Iterator[Any], workers: int) -> Iterator[Any]:
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    given = chain(map(cloudpickle.dumps, batches), repeat(None))
    held = list(islice(given, workers * _AHEAD))
    # On this machine: when another one is lost, the feed is not.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    feed: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(_Feed).remote(held)
    try:
        rows = _rows(feed, cloudpickle.dumps(work), min(workers, len(held) - held.count(None)))
        with closing(rows):
            for expected, (number, result) in enumerate(rows):
                if number != expected:
                    raise Unavailable(f"Ray handed back batch {number} where {expected} was due; nothing was written")
                value, error = cloudpickle.loads(result)
                if error is not None:
                    raise error
                yield value
                ray.get(feed.put.remote(next(given)))
    finally:
        ray.kill(feed)


def _rows(feed: Any, work: bytes, workers: int) -> Generator[tuple[int, bytes]]:
    """(number, pickled result) of each batch, through Ray Data."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised
    start = ray.data.from_items([0])
    start.context.execution_options.preserve_order = True
    start.context.enable_progress_bars = False
    start.context.target_max_block_size = 1  # a block for each batch, as soon as there is one
    batches = start.map_batches(_draw, fn_kwargs={"feed": feed}, batch_format="pyarrow", num_cpus=0)
    results = batches.map_batches(
        _Worker,
        fn_constructor_args=(feed, work, this_environment()),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )
    for table in results.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
        yield table["number"][0].as_py(), table["result"][0].as_py()


class _Feed:
    """Holds the oldest batch without a result and those after it, ``None`` after the last one; an actor."""

    def __init__(self, held: list[bytes | None]) -> None:
        self.held = deque(held, maxlen=len(held))
        self.oldest = 0
        self.tries: Counter[int] = Counter()
        self.changed = asyncio.Condition()

    async def put(self, batch: bytes | None) -> None:
        """One more batch, now that the oldest one's result was taken."""
        async with self.changed:
            self.held.append(batch)
            self.oldest += 1
            self.changed.notify_all()

    async def take(self, number: int) -> bytes | None:
        """A batch, when it is there. Of one whose result was taken nothing is left, and nothing needed."""
        async with self.changed:
            await self.changed.wait_for(lambda: number < self.oldest + len(self.held))
            return self.held[number - self.oldest] if number >= self.oldest else b""

    async def tried(self, number: int) -> int:
        """How many workers took up this batch before."""
        self.tries[number] += 1
        return self.tries[number] - 1


def _draw(_: "pa.Table", feed: Any) -> "Iterator[pa.Table]":
    """A block of one row for each batch; a task that Ray may start again at any point."""
    import pyarrow as pa
    import ray

    for number in count():
        batch = ray.get(feed.take.remote(number))
        if batch is None:
            return
        yield pa.table({"number": [number], "batch": pa.array([batch], pa.large_binary())})


class _Worker:
    """Does the work on one batch after the other; an actor of the pool."""

    def __init__(self, feed: Any, work: bytes, environment: Digest) -> None:
        self.feed, self.pickled, self.environment = feed, work, environment
        self.work: Callable[[Any], Any] | None = None

    def __call__(self, table: "pa.Table") -> "pa.Table":
        import pyarrow as pa
        import ray

        number = table["number"][0].as_py()
        tries = ray.get(self.feed.tried.remote(number))
        result = self._result(number, table["batch"][0].as_py(), tries)
        return pa.table({"number": [number], "result": pa.array([result], pa.large_binary())})

    def _result(self, number: int, batch: bytes, tries: int) -> bytes:
        """(result, error) pickled: what the work raises is a result, as Ray would wrap it."""
        from ray import cloudpickle

        try:
            if tries >= _TRIES:
                raise Unavailable(
                    f"batch {number} ended its worker {tries} times (out of memory, or ended from outside); nothing "
                    "was written. Give the workers more memory"
                )
            if self.work is None:
                self.work = _loaded(self.pickled, self.environment)
            return bytes(cloudpickle.dumps((self.work(cloudpickle.loads(batch)), None)))
        except Exception as error:
            if not isinstance(error, AssayError):
                error.add_note(f"In a Ray worker:\n{traceback.format_exc()}")
            return bytes(cloudpickle.dumps((None, error)))


def _loaded(work: bytes, environment: Digest) -> Callable[[Any], Any]:
    from ray import cloudpickle

    check_environment(environment)
    loaded: Callable[[Any], Any] = cloudpickle.loads(work)
    return loaded


def _processors() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))
