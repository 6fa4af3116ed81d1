"""Rows a few at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

_ROWS = 5_000
"""So many that what a batch costs beside its rows (a transaction, a call) counts for little."""


def batched(things: Iterable[T], size: int = _ROWS) -> Iterator[list[T]]:
    left = iter(things)
    while some := list(islice(left, size)):
        yield some
