"""What the trainer prints, kept in its run directory as well: whoever started it, and wherever, the end can be read."""

import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO, cast

_TAIL = 4000


@contextmanager
def kept(path: Path) -> Iterator[None]:
    """Write what Python prints to ``path`` too, and the stack of a crash (a signal such as SIGSEGV)."""
    path.unlink(missing_ok=True)
    with path.open("a", buffering=1, errors="backslashreplace") as log:  # others append to it too
        faulthandler.enable(log)
        out, err = cast(TextIO, _Both(sys.stdout, log)), cast(TextIO, _Both(sys.stderr, log))
        try:
            with redirect_stdout(out), redirect_stderr(err):
                yield
        finally:
            faulthandler.disable()


def tail(path: Path) -> str:
    """The last whole lines, some 4,000 characters; nothing when there is no file."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return text if len(text) <= _TAIL else text[-_TAIL:].partition("\n")[2]


class _Both:
    """A stream that writes to two; for the rest it is the first, but never a terminal, so that nobody draws into it."""

    def __init__(self, shown: TextIO, log: TextIO) -> None:
        self.shown, self.log = shown, log

    def write(self, text: str) -> int:
        self.log.write(text)
        return self.shown.write(text)

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> object:
        return getattr(self.shown, name)
