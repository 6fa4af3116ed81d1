"""What the machine has and computes well, found without loading torch."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Literal

from data_contracts.frozen import Frozen

_CPU = Path("/proc/cpuinfo")
_GPU = Path("/dev/nvidia0")
_MEMORY = Path("/proc/meminfo")
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


class Machine(Frozen):
    """Where training would run: its memory in bytes, of the first GPU or of the whole machine, and what of it is free
    now."""

    kind: Literal["gpu", "cpu"]
    total: int
    free: int


def machine_name(cpu: Path = _CPU, gpu: Path = _GPU) -> str:
    """What computes, as its maker calls it: the GPUs, or the processor with the cores that this process may use."""
    if gpu.exists():
        return ", ".join(_asked_of_gpu("name")) or "an NVIDIA GPU"
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def computes_bf16(cpu: Path = _CPU, gpu: Path = _GPU) -> bool:
    """Whether bfloat16 is as fast as float32: on an NVIDIA GPU, or where the processor has instructions for it."""
    if gpu.exists():
        return True
    words = set(cpu.read_text().split()) if cpu.exists() else set()
    return not words.isdisjoint(_INSTRUCTIONS)


def this_machine(memory: Path = _MEMORY, limits: tuple[Path, ...] = _LIMITS, gpu: Path = _GPU) -> Machine | None:
    """``None`` where neither the kernel nor the driver tells. A container's limit counts as the machine's memory."""
    if gpu.exists():
        return _gpu()
    if not memory.exists():
        return None
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in memory.read_text().splitlines()}
    allowed = [int(text) for limit in limits if limit.exists() and (text := limit.read_text().strip()).isdigit()]
    total = min(kilobytes["MemTotal"] * 1024, *allowed) if allowed else kilobytes["MemTotal"] * 1024
    return Machine(kind="cpu", total=total, free=min(kilobytes["MemAvailable"] * 1024, total))


def _gpu() -> Machine | None:
    try:
        total, free = (int(number) * 2**20 for number in _asked_of_gpu("memory.total,memory.free")[0].split(","))
    except (IndexError, ValueError):
        return None
    return Machine(kind="gpu", total=total, free=free)


def _asked_of_gpu(what: str) -> list[str]:
    """A line for each GPU; none where the driver does not answer."""
    ask = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True, timeout=30).stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
