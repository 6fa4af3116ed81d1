"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable


def eventually(seen: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not seen() and time.monotonic() < deadline:
        time.sleep(0.01)
    return seen()
