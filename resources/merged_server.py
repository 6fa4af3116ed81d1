"""The merged weights of one release in a vLLM of their own, beside the one that serves the base with its adapters."""

import json
import time
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from data_contracts.digests import Digest, hex_of
from data_contracts.errors import Unavailable
from data_contracts.manifests import ExportManifest
from data_contracts.store import ArtifactStore
from pipelines.stages.serve.capacity import Sizing, capacity, merged_capacity, refuse_what_cannot_be_served
from pipelines.stages.train.estimate import shapes_of
from pipelines.stages.train.hardware import this_machine
from resources.locks import FileLocks
from resources.supervisor import STOPPED
from resources.vllm_program import VllmProgram

UNFINISHED = ("vllm:num_requests_running", "vllm:num_requests_waiting")
DRAIN_SECONDS = 120
LOOK_SECONDS = 0.5


class MergedServer:
    """Implements `pipelines.stages.protocols.MergedReplica`.

    ``ready`` names the export whose weights answer. It is written once they do and removed before they are exchanged;
    a server that died meanwhile is found by whoever asks it, and by `serves`.
    """

    def __init__(self, store: ArtifactStore, folder: Path, program: VllmProgram, sizing: Sizing) -> None:
        self.store, self.program, self.sizing = store, program, sizing
        self.ready = folder / "ready.json"
        self.locks = FileLocks(folder)

    def serve(self, export: ExportManifest) -> None:
        """What was opened is needed until vLLM has read it: one that is started again opens it again."""
        name = self.name_of(export.tree)
        if self.serves(export):
            return
        with self.locks.hold("merged"), self.store.opened(export.tree) as folder:
            self._end()
            shapes = shapes_of(folder)
            needed, beside = merged_capacity(shapes, self.sizing), capacity(shapes, self.sizing).total
            refuse_what_cannot_be_served(needed, self.sizing, this_machine(), beside)
            plan: dict[str, Any] = {
                "base": {"tree": export.tree},
                "trees": {export.tree: str(folder)},
                "argv": self.program.command(folder, name, self.sizing),
                "env": self.program.environment(self.sizing),
            }
            self.program.run(plan, name, f"the merged weights of {export.product}")
            ready = {"release": export.release, "export": export.digest, "tree": export.tree, "bytes": needed.total}
            part = self.ready.with_suffix(".part")
            part.write_text(json.dumps(ready))
            part.replace(self.ready)

    def serves(self, export: ExportManifest) -> bool:
        found = self._read()
        return found is not None and found["export"] == export.digest and self.program.serves(self.name_of(export.tree))

    def stop(self) -> None:
        if self.running():
            with self.locks.hold("merged"):
                self._end()

    def running(self) -> bool:
        return self.program.supervisor.state(self.program.name) not in STOPPED

    def export_of(self, release: Digest) -> tuple[Digest, str] | None:
        found = self._read()
        if found is None or found["release"] != release:
            return None
        return found["export"], self.name_of(found["tree"])

    def held(self) -> tuple[Digest, int] | None:
        found = self._read()
        return (found["release"], found["bytes"]) if found and self.running() else None

    def url(self) -> str:
        return self.program.url()

    def name_of(self, tree: Digest) -> str:
        return f"merged-{hex_of(tree)}"

    def _end(self) -> None:
        """Nobody is sent there any more, and running answers end first."""
        self.ready.unlink(missing_ok=True)
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.running() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)  # who was told of it just before has asked it by then
            if not self._answering():
                break
        self.program.supervisor.stop(self.program.name)

    def _answering(self) -> bool:
        """Whether vLLM has unfinished requests; one that says nothing has none that could end well."""
        try:
            text = self.program.ask("GET", "/metrics").text
        except Unavailable:
            return False
        found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return any(sample.value > 0 for sample in found if sample.name in UNFINISHED)

    def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.ready.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found
