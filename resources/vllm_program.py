"""A supervised vLLM: its plan, from which the supervisor can start the same server again by itself, and its port."""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from data_contracts.errors import Unavailable
from pipelines.stages.serve.capacity import Sizing
from resources.supervisor import Supervisor

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
FEW_CORES = 4

log = logging.getLogger(__name__)


class VllmProgram:
    """``name``: the supervisor's program; ``plan``: the file that `resources.vllm_launcher` starts it from; ``python``:
    of the serving environment."""

    def __init__(
        self,
        name: str,
        plan: Path,
        port: int,
        supervisor: Supervisor,
        python: Path,
        start_seconds: float = 400,
        progress: Callable[[str], None] = log.info,
    ) -> None:
        self.name, self.plan_file, self.port = name, plan, port
        self.supervisor, self.python = supervisor, python
        self.start_seconds, self.progress = start_seconds, progress

    def recorded(self) -> dict[str, Any] | None:
        """The plan of what runs, or ran last."""
        if not self.plan_file.exists():
            return None
        plan: dict[str, Any] = json.loads(self.plan_file.read_bytes())
        return plan

    def command(self, model: Path, served: str, sizing: Sizing) -> list[str]:
        """What starts a server of the folder ``model``, asked for as ``served``. Raises `Unavailable` where there is no
        serving environment."""
        if not self.python.exists():
            raise Unavailable(f"no serving environment at {self.python}: run `make setup`, or set ASSAY_SERVE_PYTHON")
        argv = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        argv += ["--served-model-name", served, "--host", "127.0.0.1", "--port", str(self.port)]
        dtype = "bfloat16" if sizing.width == 2 else "float32"
        argv += ["--dtype", dtype, "--enforce-eager", "--max-model-len", str(sizing.max_model_len)]
        argv += ["--trust-request-chat-template", "--generation-config", "vllm"]
        return [*argv, "--disable-fastapi-docs", "--disable-uvicorn-access-log"]

    def environment(self, sizing: Sizing) -> dict[str, str]:
        kept = {"VLLM_CPU_KVCACHE_SPACE": str(sizing.kv_gib), "PYTHONPATH": str(ROOT)}
        return ENVIRONMENT | _threads() | kept

    def run(self, plan: dict[str, Any], served: str, what: str) -> None:
        """Have this plan's server run, another one stopped first; returns when it answers for ``served``. ``what`` it
        loads is told while that takes long. Raises `Unavailable` when it does not come up."""
        if self.recorded() != plan:
            self.supervisor.stop(self.name)
            self.plan_file.parent.mkdir(parents=True, exist_ok=True)
            part = self.plan_file.with_suffix(".part")
            part.write_text(json.dumps(plan, indent=1, sort_keys=True))
            part.replace(self.plan_file)
        self.supervisor.start(self.name)
        self._wait(served, what)

    def serves(self, served: str) -> bool:
        """Our own server does: another installation's may answer on this port."""
        return self.supervisor.state(self.name) == "RUNNING" and self._answers_for(served)

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._request(method, path, timeout=httpx.Timeout(150, connect=5), **request)
        except httpx.HTTPError as error:
            raise Unavailable(f"vLLM at {self.url()} cannot be reached: {error}") from error

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Plain HTTP on this machine: no proxy, no certificates to read."""
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", trust_env=False, verify=False, **request)

    def _answers_for(self, served: str) -> bool:
        try:
            cards = self._request("GET", "/v1/models", timeout=5).json()["data"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return any(card["id"] == served for card in cards)

    def _wait(self, served: str, what: str) -> None:
        """Until the server answers; says how long it takes, and its last words when it does not."""
        began = told = time.monotonic()
        while not self._answers_for(served):
            now = time.monotonic()
            state = self.supervisor.state(self.name)
            if state == "FATAL" or now - began > self.start_seconds:
                raise Unavailable(f"vLLM did not start ({state.lower()}):\n{self.supervisor.log_tail(self.name)}")
            if now - told >= 10:
                self.progress(f"vLLM is loading {what} ({now - began:.0f} s)")
                told = now
            time.sleep(0.3)
        self.progress(f"vLLM answers with {what} after {time.monotonic() - began:.0f} s")


def _threads() -> dict[str, str]:
    """Where a CPU build computes. By itself vLLM keeps one core free: of two cores, half the speed."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > FEW_CORES:
        return {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)), "OMP_NUM_THREADS": str(len(cores))}
