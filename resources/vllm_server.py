"""vLLM as a supervised program: one base, adapters named by the digest of their bytes, loaded while it answers.

How it stays immune to answers from the wrong adapter: see `resources.vllm_guard`, which runs inside the server.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import JsonValue

from data_contracts.actions import code_version
from data_contracts.digests import Digest, hex_of
from data_contracts.errors import Refused, Unavailable
from data_contracts.manifests import BaseManifest
from data_contracts.store import ArtifactStore
from pipelines.stages.serve.capacity import (
    TARGET_MODULES,
    Sizing,
    allowed_rank,
    capacity,
    refuse_what_cannot_be_served,
    residents,
)
from pipelines.stages.train.estimate import shapes_of
from pipelines.stages.train.hardware import computes_bf16, machine_name, this_machine
from resources.adapters import check_adapter, served_name, write_zero_adapter
from resources.locks import FileLocks
from resources.supervisor import Supervisor

ROOT = Path(__file__).parents[1]
GUARD = "resources.vllm_guard.AdapterGuard"
LORA_ON_CPU = "resources.vllm_lora_cpu.GroupedLora"
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
FEW_CORES = 4
_CODE = ("resources.vllm_guard", "resources.vllm_lora_cpu", "resources.vllm_server")

log = logging.getLogger(__name__)


class VllmServer:
    """Implements `evals.protocols.ModelServer`.

    ``slots``: adapters vLLM has memory for. One stays empty, one is the base's adapter of zeros; of the others that are
    not pinned the least recently used leaves when a new one comes.
    """

    def __init__(
        self,
        store: ArtifactStore,
        home: Path,
        port: int,
        supervisor: Supervisor,
        python: Path,
        slots: int = 8,
        max_rank: int = 16,
        max_model_len: int = 2048,
        kv_gib: int = 1,
        start_seconds: float = 400,
        progress: Callable[[str], None] = log.info,
    ) -> None:
        self.store = store
        self.home = home
        self.port = port
        self.supervisor = supervisor
        self.python = python
        self.sizing = Sizing(
            slots=slots,
            max_rank=max_rank,
            max_model_len=max_model_len,
            kv_gib=kv_gib,
            width=2 if computes_bf16() else 4,
        )
        self.start_seconds = start_seconds
        self.progress = progress
        self.locks = FileLocks(home)

    def ensure_running(self, base: BaseManifest) -> None:
        """Serve this base, verified; another one that runs is stopped first. Returns when it answers.

        Raises `Tampered` or `Missing` for a damaged base, `Refused` when it cannot fit, `Unavailable` when the server
        does not come up.
        """
        if self._serves(base.digest):
            return
        with self.locks.hold("vllm"):
            if self._serves(base.digest):
                return
            plan = self._plan(base)
            if self._recorded() != plan:
                self.supervisor.stop("vllm")
                self.home.mkdir(parents=True, exist_ok=True)
                part = self._plan_file.with_suffix(".part")
                part.write_text(json.dumps(plan, indent=1, sort_keys=True))
                part.replace(self._plan_file)
            self.supervisor.start("vllm")
            self._wait(base)

    def ensure_loaded(self, weights: Digest) -> str:
        """Verify an adapter (bytes, base, rank, layers) and load it, unless it is; the name to ask for. Safe to repeat.

        Raises `Tampered`, `Missing` or `Shredded` for bytes that cannot be read whole, `Refused` for an adapter of
        another base or shape.
        """
        base = self.base()
        if base is None:
            raise Unavailable("no base is served yet: nothing can be loaded onto it")
        name = served_name(weights)
        if name in self.loaded():
            return name
        with self.store.opened(weights) as folder:  # vLLM reads it once, and holds what it read
            check_adapter(folder, base.digest, self.sizing.max_rank)
            answer = self._ask("POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})
        if answer.status_code != 200:
            raise Refused(f"vLLM did not load adapter {weights}: {_why(answer)}")
        return name

    def name_of(self, weights: Digest) -> str:
        return served_name(weights)

    @property
    def residents(self) -> int:
        return residents(self.sizing.slots)

    def pin(self, adapters: Mapping[str, Digest | None]) -> None:
        """Keep the adapter of each of these products loaded. Raises `Refused` when too many would be."""
        names = {product: served_name(weights) if weights else None for product, weights in adapters.items()}
        answer = self._ask("POST", "/v1/pin_lora_adapters", json={"pins": names})
        if answer.status_code != 200:
            raise Refused(f"vLLM pins no more adapters: {_why(answer)}")

    def unload(self, weights: Digest) -> None:
        """Free an adapter's slot after its running answers. Safe to repeat. Raises `Unavailable` when none answers."""
        if served_name(weights) not in self.loaded():
            return
        answer = self._ask("POST", "/v1/unload_lora_adapter", json={"lora_name": served_name(weights)})
        if answer.status_code != 200:
            raise Unavailable(f"vLLM did not unload adapter {weights}: {_why(answer)}")

    def base(self) -> BaseManifest | None:
        """The base that is, or was last, asked for."""
        plan = self._recorded()
        return None if plan is None else BaseManifest.model_validate(plan["base"])

    def base_name(self) -> str:
        plan = self._recorded()
        if plan is None:
            raise Unavailable("no base is served yet")
        return str(plan["zero"])

    def loaded(self) -> list[str]:
        """Names of the adapters that answer now, the base's own included."""
        cards = self._ask("GET", "/v1/models").json()["data"]
        return sorted(card["id"] for card in cards if card["id"].startswith("adapter-"))

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def setup(self) -> dict[str, JsonValue]:
        return {"machine": machine_name(), "code": code_version(*_CODE), **self.sizing.payload()}

    @property
    def _plan_file(self) -> Path:
        return self.home / "plan.json"

    def _recorded(self) -> dict[str, Any] | None:
        if not self._plan_file.exists():
            return None
        plan: dict[str, Any] = json.loads(self._plan_file.read_bytes())
        return plan

    def _plan(self, base: BaseManifest) -> dict[str, Any]:
        """Everything the launcher needs, so that the supervisor can start the same server again by itself."""
        if not self.python.exists():
            raise Unavailable(f"no serving environment at {self.python}: run `make setup`, or set ASSAY_SERVE_PYTHON")
        folder = self.store.tree(base.tree)
        refuse_what_cannot_be_served(capacity(shapes_of(folder), self.sizing), self.sizing, this_machine())
        zero = self._zero_adapter(folder, base)
        zero_folder = self.store.tree(zero)
        argv = [str(self.python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        argv += ["--served-model-name", f"base-{hex_of(base.digest)}", "--host", "127.0.0.1", "--port", str(self.port)]
        dtype = "bfloat16" if self.sizing.width == 2 else "float32"
        argv += ["--dtype", dtype, "--enforce-eager", "--max-model-len", str(self.sizing.max_model_len)]
        argv += ["--enable-lora", "--max-loras", str(self.sizing.slots)]
        argv += ["--max-lora-rank", str(allowed_rank(self.sizing.max_rank))]
        argv += ["--lora-target-modules", *TARGET_MODULES, "--lora-modules", f"{served_name(zero)}={zero_folder}"]
        argv += ["--trust-request-chat-template", "--generation-config", "vllm", "--middleware", GUARD]
        argv += ["--worker-extension-cls", LORA_ON_CPU]
        argv += ["--disable-fastapi-docs", "--disable-uvicorn-access-log"]
        return {
            "base": base.payload(),
            "zero": served_name(zero),
            "trees": {base.tree: str(folder), zero: str(zero_folder)},
            "argv": argv,
            "env": ENVIRONMENT
            | _threads()
            | {"VLLM_CPU_KVCACHE_SPACE": str(self.sizing.kv_gib), "PYTHONPATH": str(ROOT)},
        }

    def _zero_adapter(self, base_folder: Path, base: BaseManifest) -> Digest:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "zero"
            write_zero_adapter(base_folder, base.digest, folder)
            return self.store.put_tree(folder)

    def _serves(self, base: Digest) -> bool:
        """Our own server does: another installation's may answer on this port."""
        return self.supervisor.state("vllm") == "RUNNING" and self._answers_for(base)

    def _answers_for(self, base: Digest) -> bool:
        try:
            cards = self._request("GET", "/v1/models", timeout=5).json()["data"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return any(card["id"] == f"base-{hex_of(base)}" for card in cards)

    def _wait(self, base: BaseManifest) -> None:
        """Until the server answers for this base; says how long it takes, and its last words when it does not."""
        began = told = time.monotonic()
        while not self._answers_for(base.digest):
            now = time.monotonic()
            state = self.supervisor.state("vllm")
            if state == "FATAL" or now - began > self.start_seconds:
                raise Unavailable(f"vLLM did not start ({state.lower()}):\n{self.supervisor.log_tail('vllm')}")
            if now - told >= 10:
                self.progress(f"vLLM is loading {base.name} ({now - began:.0f} s)")
                told = now
            time.sleep(0.3)
        self.progress(f"vLLM answers with {base.name} after {time.monotonic() - began:.0f} s")

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._request(method, path, timeout=httpx.Timeout(150, connect=5), **request)
        except httpx.HTTPError as error:
            raise Unavailable(f"vLLM at {self.url()} cannot be reached: {error}") from error

    def _request(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Plain HTTP on this machine: no proxy, no certificates to read."""
        return httpx.request(method, f"http://127.0.0.1:{self.port}{path}", trust_env=False, verify=False, **request)


def _threads() -> dict[str, str]:
    """Where a CPU build computes. By itself vLLM keeps one core free: of two cores, half the speed."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > FEW_CORES:
        return {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)), "OMP_NUM_THREADS": str(len(cores))}


def _why(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}: {os.fsdecode(answer.content[:300])}"
