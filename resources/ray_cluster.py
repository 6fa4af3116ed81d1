"""The Ray cluster that work goes to: one that is named, or one that starts here and ends with this process."""

import atexit
import logging
import os
import secrets
import shutil
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest, sha256_file, sha256_json
from data_contracts.errors import BadInput, Unavailable

_FOLDER = "assay-ray-"
_STORE_BYTES = 256 << 20
"""Shared memory of a cluster that is started here; what does not fit goes to its folder on disk."""


def connect(workers: int | None, instead: str) -> None:
    """This process becomes a driver of the cluster that ``RAY_ADDRESS`` names, else of one with ``workers`` processors
    that starts here; once. Raises `Unavailable`, and `BadInput` for a Ray Client; ``instead`` is the setting that does
    without Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise BadInput(
            f"RAY_ADDRESS is {address}, a Ray Client, which is not supported: work on a machine of the "
            "cluster and give HOST:PORT of its head"
        )
    try:
        if address:
            ray.init(address, **quiet)
        else:
            _start(workers, quiet)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        where = f"the Ray cluster at RAY_ADDRESS={address} cannot be reached" if address else "Ray does not start here"
        raise Unavailable(f"{where} ({error}); correct it, or set {instead}") from error


def this_environment() -> Digest:
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


def check_environment(expected: Digest) -> None:
    """In a worker. Raises `Unavailable` where results could differ."""
    if this_environment() != expected:
        raise Unavailable(
            f"{os.uname().nodename} of the Ray cluster runs another Python, other packages or other code than this "
            "process, so its results could differ: give it the same checkout, set up by `make setup`"
        )


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
