"""The processes of one training run, numbered by rank: rank 0 writes, and what ends a run is decided by all at once.

A collective that not every process takes part in waits for ever: call these on all ranks, in the same order.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from pipelines.recipes.recipe import Parallel

T = TypeVar("T")


def started() -> bool:
    """Whether this is one of the processes that ``accelerate launch`` started."""
    return "RANK" in os.environ


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process writes checkpoints, results and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Meet the other processes: NCCL between GPUs, gloo between processors."""
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def seed(number: int) -> None:
    """Each rank drops out other units; the weights were drawn before, alike on all."""
    if count() > 1:
        from accelerate.utils import set_seed

        set_seed(number, device_specific=True)


def share_reference_scores(folder: Path) -> None:
    """TRL's rank 0 writes the reference's scores into a file of `datasets` that the others read: let the fingerprint
    that they agree on name it. Without its cache `datasets` draws another name on each rank."""
    if count() > 1:
        from datasets import Dataset

        Dataset._get_cache_file_path = lambda _, fingerprint: str(folder / f"cache-{fingerprint}.arrow")


def options(parallel: Parallel | None) -> dict[str, Any]:
    """What the trainer is told of it."""
    return {} if parallel is None else {"ddp_find_unused_parameters": False}


def told(work: Callable[[], T]) -> T:
    """What ``work`` gives on rank 0, on every rank; the others do not do it."""
    if count() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    found = [work() if is_main() else None]
    broadcast_object_list(found)
    return cast(T, found[0])


def anywhere(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    return total(float(flag)) > 0


def mean(value: float) -> float:
    """The mean over the ranks; NaN or infinite where one of them is."""
    return total(value) / count()


def total(value: float) -> float:
    """The sum over the ranks. All wait for the last one."""
    if count() == 1:
        return value
    import torch
    import torch.distributed

    summed: Any = torch.tensor(value, dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
    torch.distributed.all_reduce(summed)
    return float(summed)


def wait() -> None:
    """Until every rank is here."""
    total(0.0)
