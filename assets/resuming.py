"""A training step whose trainer was stopped is run again: it goes on from its last checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from data_contracts.errors import Unavailable

RETRIES = 3
WAIT_S = 10


@contextmanager
def resumed_after_a_stop() -> Iterator[None]:
    """Let Dagster retry the step when the trainer was told to stop, was killed, or lost the store of its checkpoints.
    What would come out the same again, a guard that tripped or a bad row, fails at once; so does a cancelled run."""
    try:
        yield
    except Unavailable as stopped:
        raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=WAIT_S) from stopped
