"""Processes found again by a mark in their environment, which every descendant inherits."""

import contextlib

import psutil


def marked(name: str, value: str) -> list[psutil.Process]:
    """Processes with this environment variable, without this process and its parents."""
    me = psutil.Process()
    spared = {me.pid, *(parent.pid for parent in me.parents())}
    return [process for process in psutil.process_iter() if process.pid not in spared and _has(process, name, value)]


def end_marked(name: str, value: str, seconds: float = 10) -> None:
    """Terminate them, and kill those that are still there after ``seconds``."""
    found = marked(name, value)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(found, timeout=seconds)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)


def _has(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return bool(process.environ().get(name) == value)
    except (psutil.Error, OSError):
        return False
