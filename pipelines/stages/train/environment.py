"""What a training run was computed with, as far as it can change the result."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

import torch

_PACKAGES = [
    "accelerate",
    "bitsandbytes",
    "datasets",
    "numpy",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
]


_DRIVER = Path("/proc/driver/nvidia/version")


def describe() -> dict[str, str]:
    """Versions, build, device, driver, thread count and what makes sums repeatable; nothing that names a machine or a
    time. It is part of the manifest, so the project's commit is not: the code that computes is in the action key, and
    a commit of another file would give the same weights another name. The commit is in the run's record."""
    return {
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda or "none",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "devices": str(torch.cuda.device_count()),
        "driver": _driver(),
        "threads": str(torch.get_num_threads()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
        "torch_build": torch.version.git_version or "unknown",
        "cudnn_benchmark": str(torch.backends.cudnn.benchmark),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", "default"),
    }


def _driver() -> str:
    """Version of the NVIDIA driver, as its kernel module tells."""
    found = re.search(r"Kernel Module\D*([\d.]+)", _DRIVER.read_text()) if _DRIVER.exists() else None
    return found[1] if found else "none"
