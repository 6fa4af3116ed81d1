"""Processes of one installation, found again after whoever started them was killed: by a mark in their environment,
which every descendant inherits, or in their title, for programs that write a title over their environment."""

import contextlib
from collections.abc import Callable

import psutil

from data_contracts.digests import hex_of, sha256_bytes

MARK = "ASSAY_SUPERVISED_BY"
PROGRAM = "ASSAY_PROGRAM"
"""Beside the mark: which of the owner's programs."""


def title(owner: str, program: str) -> str:
    """The beginning of a titled process's command line. ``owner`` is the supervisor's run folder."""
    return f"{_of(owner)}{program}"


def titled(owner: str, program: str = "") -> list[psutil.Process]:
    """Processes that carry the owner's title: the parts of its model servers, or of one."""
    start = f"{title(owner, program)}::" if program else _of(owner)
    return _others(lambda process: "".join(process.cmdline()[:1]).startswith(start))


def owned(owner: str) -> list[psutil.Process]:
    """All processes that the owner's supervisor, or what it started, ever started."""
    return [*_others(lambda process: bool(process.environ().get(MARK) == owner)), *titled(owner)]


def left_behind(owner: str, program: str) -> list[psutil.Process]:
    """Processes whose parent, one of the owner's, was killed. What they started in turn is not among them."""
    mine = owned(owner)
    running = {process.pid for process in mine}

    def orphaned(process: psutil.Process) -> bool:
        return process.environ().get(PROGRAM) == program and process.ppid() not in running

    return [process for process in mine if _matches(process, orphaned)]


def end(processes: list[psutil.Process], seconds: float = 10) -> None:
    """Terminate them, and kill those that are still there after ``seconds``."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(processes, timeout=seconds)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)


def _of(owner: str) -> str:
    return f"assay-{hex_of(sha256_bytes(owner.encode()))[:12]}-"


def _others(wanted: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Processes that match, without this one and its parents."""
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    return [process for process in psutil.process_iter() if process.pid not in spared and _matches(process, wanted)]


def _matches(process: psutil.Process, wanted: Callable[[psutil.Process], bool]) -> bool:
    try:
        return wanted(process)
    except (psutil.Error, OSError):
        return False
