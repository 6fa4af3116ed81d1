"""vLLM as a supervised program: one base, adapters named by the digest of their bytes, loaded while it answers.

How it stays immune to answers from the wrong adapter: see `resources.vllm_guard`, which runs inside the server.
"""

import os
import tempfile
from collections.abc import Mapping
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
from pipelines.stages.train.hardware import machine_name, this_machine
from resources.adapters import check_adapter, served_name, write_zero_adapter
from resources.locks import FileLocks
from resources.vllm_program import VllmProgram

GUARD = "resources.vllm_guard.AdapterGuard"
LORA_ON_CPU = "resources.vllm_lora_cpu.GroupedLora"
_CODE = ("resources.vllm_guard", "resources.vllm_lora_cpu", "resources.vllm_program", "resources.vllm_server")


class VllmServer:
    """Implements `evals.protocols.ModelServer`.

    ``slots``: adapters vLLM has memory for. One stays empty, one is the base's adapter of zeros; of the others that are
    not pinned the least recently used leaves when a new one comes.
    """

    def __init__(self, store: ArtifactStore, home: Path, program: VllmProgram, sizing: Sizing) -> None:
        self.store, self.program, self.sizing = store, program, sizing
        self.locks = FileLocks(home)
        self._slot_bytes: dict[Digest, int] = {}

    def ensure_running(self, base: BaseManifest) -> None:
        """Serve this base, verified; another one that runs is stopped first. Returns when it answers.

        Raises `Tampered` or `Missing` for a damaged base, `Refused` when it cannot fit, `Unavailable` when the server
        does not come up.
        """
        served = _base_name(base.digest)
        if self.program.serves(served):
            return
        with self.locks.hold("vllm"):
            if not self.program.serves(served):
                self.program.run(self._plan(base), served, base.name)

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
            answer = self.program.ask(
                "POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}
            )
        if answer.status_code != 200:
            raise Refused(f"vLLM did not load adapter {weights}: {_why(answer)}")
        return name

    def name_of(self, weights: Digest) -> str:
        return served_name(weights)

    @property
    def residents(self) -> int:
        return residents(self.sizing.slots)

    def slot_bytes(self) -> int:
        """As `capacity` reckons it: vLLM keeps every slot for the greatest rank."""
        base = self.base()
        if base is None:
            raise Unavailable("no base is served yet: it has no adapter slots")
        if base.digest not in self._slot_bytes:
            needed = capacity(shapes_of(self.store.tree(base.tree)), self.sizing)
            self._slot_bytes[base.digest] = needed.adapters // self.sizing.slots
        return self._slot_bytes[base.digest]

    def pin(self, adapters: Mapping[str, Digest | None]) -> None:
        """Keep the adapter of each of these products loaded. Raises `Refused` when too many would be."""
        names = {product: served_name(weights) if weights else None for product, weights in adapters.items()}
        answer = self.program.ask("POST", "/v1/pin_lora_adapters", json={"pins": names})
        if answer.status_code != 200:
            raise Refused(f"vLLM pins no more adapters: {_why(answer)}")

    def unload(self, weights: Digest) -> None:
        """Free an adapter's slot after its running answers. Safe to repeat. Raises `Unavailable` when none answers."""
        if served_name(weights) not in self.loaded():
            return
        answer = self.program.ask("POST", "/v1/unload_lora_adapter", json={"lora_name": served_name(weights)})
        if answer.status_code != 200:
            raise Unavailable(f"vLLM did not unload adapter {weights}: {_why(answer)}")

    def base(self) -> BaseManifest | None:
        """The base that is, or was last, asked for."""
        plan = self.program.recorded()
        return None if plan is None else BaseManifest.model_validate(plan["base"])

    def base_name(self) -> str:
        plan = self.program.recorded()
        if plan is None:
            raise Unavailable("no base is served yet")
        return str(plan["zero"])

    def loaded(self) -> list[str]:
        """Names of the adapters that answer now, the base's own included."""
        cards = self.program.ask("GET", "/v1/models").json()["data"]
        return sorted(card["id"] for card in cards if card["id"].startswith("adapter-"))

    def url(self) -> str:
        return self.program.url()

    def setup(self) -> dict[str, JsonValue]:
        return {"machine": machine_name(), "code": code_version(*_CODE), **self.sizing.payload()}

    def _plan(self, base: BaseManifest) -> dict[str, Any]:
        """Everything the launcher needs, so that the supervisor can start the same server again by itself."""
        folder = self.store.tree(base.tree)
        refuse_what_cannot_be_served(capacity(shapes_of(folder), self.sizing), self.sizing, this_machine())
        zero = self._zero_adapter(folder, base)
        zero_folder = self.store.tree(zero)
        argv = self.program.command(folder, _base_name(base.digest), self.sizing)
        argv += ["--enable-lora", "--max-loras", str(self.sizing.slots)]
        argv += ["--max-lora-rank", str(allowed_rank(self.sizing.max_rank))]
        argv += ["--lora-target-modules", *TARGET_MODULES, "--lora-modules", f"{served_name(zero)}={zero_folder}"]
        argv += ["--middleware", GUARD, "--worker-extension-cls", LORA_ON_CPU]
        return {
            "base": base.payload(),
            "zero": served_name(zero),
            "trees": {base.tree: str(folder), zero: str(zero_folder)},
            "argv": argv,
            "env": self.program.environment(self.sizing) | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"},
        }

    def _zero_adapter(self, base_folder: Path, base: BaseManifest) -> Digest:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "zero"
            write_zero_adapter(base_folder, base.digest, folder)
            return self.store.put_tree(folder)


def _base_name(base: Digest) -> str:
    return f"base-{hex_of(base)}"


def _why(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}: {os.fsdecode(answer.content[:300])}"
