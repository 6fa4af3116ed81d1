"""Work on batches that are numbers, where worker processes can import it."""

import os
import time
from pathlib import Path
from typing import Any


def square(number: int) -> tuple[int, int]:
    """The square, and the process that drew it."""
    return number * number, os.getpid()


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.05)
    return square(number)


class OwnError(Exception):
    """An error that only this module knows."""


def stumble(number: int) -> int:
    if number == 3:
        raise OwnError("row 3", "field b")
    return number


def deadly(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


class Counted:
    """Work that leaves a file each time that it is loaded in a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        (self.folder / f"{os.getpid()}-{time.monotonic_ns()}").touch()

    def __call__(self, number: int) -> int:
        return number
