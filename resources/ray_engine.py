"""Row work on Ray Data, here or on a cluster's machines: the same results, in the same order, as on local processes.

Batches go in through an actor that holds those without a result yet: only a few are ahead, and a task that Ray starts
again finds them again. A pool of actors works on them, each with the work loaded once. A worker that dies is replaced
and what it had is done again, which changes nothing: work has no effect but its result.
"""

import asyncio
import atexit
import logging
import os
import secrets
import shutil
import sys
import tempfile
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from importlib.metadata import distributions
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.errors import AssayError, BadInput, Unavailable

if TYPE_CHECKING:
    import pyarrow as pa

Batch = TypeVar("Batch")
Result = TypeVar("Result")

_FOLDER = "assay-ray-"
_AHEAD = 2
"""Batches in flight for each worker: one being worked on, one waiting. It bounds the memory."""
_TRIES = 3
"""Workers that one batch may cost before it is given up."""
_STORE_BYTES = 256 << 20
"""Shared memory of a cluster that is started here; what does not fit goes to its folder on disk."""


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
        _connect(self.workers)
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
        fn_constructor_args=(feed, work, _environment()),
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

    if _environment() != environment:
        raise Unavailable(
            f"{os.uname().nodename} of the Ray cluster runs another Python, other packages or other code than this "
            "process, so its results could differ: give it the same checkout, set up by `make setup`"
        )
    loaded: Callable[[Any], Any] = cloudpickle.loads(work)
    return loaded


def _environment() -> Digest:
    """What results depend on beside the batch: Python, the installed packages, and our own code."""
    root = Path(__file__).parents[1]
    ours = [path for folder in ("data_contracts", "pipelines", "resources") for path in (root / folder).rglob("*.py")]
    return sha256_json(
        {
            "python": sys.version,
            "packages": sorted(f"{each.name}=={each.version}" for each in distributions()),
            "code": {str(path.relative_to(root)): sha256_file(path) for path in ours},
        }
    )


def _processors() -> int:
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _connect(workers: int | None) -> None:
    """This process becomes a driver of the cluster, once. Raises `Unavailable`, and `BadInput` for a Ray Client."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise BadInput(
            f"RAY_ADDRESS is {address}, a Ray Client, which Ray Data does not support: work on a machine of the "
            "cluster and give HOST:PORT of its head"
        )
    try:
        if address:
            ray.init(address, **quiet)
        else:
            _start(workers, quiet)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        where = f"the Ray cluster at RAY_ADDRESS={address} cannot be reached" if address else "Ray does not start here"
        raise Unavailable(f"{where} ({error}); correct it, or set ASSAY_ENGINE=local") from error


def _start(workers: int | None, quiet: dict[str, Any]) -> None:
    """A cluster for this process alone. Ray listens on every network, so it asks for a token that only its processes
    know; what it writes (logs, batches that do not fit into memory) lies in a folder that goes with it."""
    import ray

    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    _clear_leftovers()
    folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-")
    atexit.register(_stop, folder)
    ray.init(
        "local",
        num_cpus=workers,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        _temp_dir=f"{folder}/ray",  # Ray opens its own folder to everybody
        _node_ip_address="127.0.0.1",
        **quiet,
    )


def _clear_leftovers() -> None:
    """Delete what clusters of commands that were killed left: it may hold rows."""
    import psutil

    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        owner = left.name.removeprefix(_FOLDER).split("-")[0]
        if not owner.isdigit() or not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


def _stop(folder: str) -> None:
    import ray

    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
