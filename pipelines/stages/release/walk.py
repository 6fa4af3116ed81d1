"""Links of a chain and how they are gathered: what raises is broken, and names itself."""

from collections.abc import Callable
from typing import Literal, TypeVar

from data_contracts.errors import AssayError, Shredded
from data_contracts.frozen import Frozen

T = TypeVar("T")


class Link(Frozen):
    """One link of the chain. ``erased``: rows were deleted on purpose, their names and roots are intact. ``shredded``:
    so was the key of weights, and their digests are intact."""

    name: str
    status: Literal["ok", "erased", "shredded", "broken"]
    detail: str


class Walk:
    def __init__(self) -> None:
        self.links: list[Link] = []

    def step(self, name: str, check: Callable[[], tuple[T, str]]) -> T | None:
        """Add the link that ``check`` finds whole; where it raises, ``None``, and the link is broken, or shredded."""
        try:
            value, detail = check()
        except Shredded as error:
            self.links.append(Link(name=name, status="shredded", detail=str(error)))
            return None
        except (AssayError, ValueError, KeyError, TypeError, OSError) as error:
            text = str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {error}"
            self.links.append(Link(name=name, status="broken", detail=text))
            return None
        self.links.append(Link(name=name, status="ok", detail=detail))
        return value
