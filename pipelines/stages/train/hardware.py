"""What the machine computes well, found without loading torch."""

from pathlib import Path

_CPU = Path("/proc/cpuinfo")
_GPU = Path("/dev/nvidia0")
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def computes_bf16(cpu: Path = _CPU, gpu: Path = _GPU) -> bool:
    """Whether bfloat16 is as fast as float32: on an NVIDIA GPU, or where the processor has instructions for it."""
    if gpu.exists():
        return True
    words = set(cpu.read_text().split()) if cpu.exists() else set()
    return not words.isdisjoint(_INSTRUCTIONS)
