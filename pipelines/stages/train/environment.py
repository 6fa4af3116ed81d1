"""What a training run was computed with, as far as it can change the result."""

import importlib.metadata
import platform

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


def describe() -> dict[str, str]:
    """Versions, build, processor features and thread count; nothing that names a machine or a time."""
    return {
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda or "none",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": str(torch.get_num_threads()),
        "deterministic": str(torch.are_deterministic_algorithms_enabled()).lower(),
    }
