"""A Kubernetes API server in miniature: it keeps to the published schema, runs a Job's container as a process of this
machine, and follows podFailurePolicy, backoffLimit and the grace period."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate

from pipelines.stages.train.job import RunFiles
from tests.support.trainer import Trainer

VERSION = "1.31"


class Pod:
    """One try: the trainer in a process of its own."""

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        container = spec["containers"][0]
        self.name, self.grace, self.container = name, spec["terminationGracePeriodSeconds"], container["name"]
        job_file = Path(container["command"][-1])
        log = RunFiles(job_file.parent).lock.with_name("trainer.log")
        self.log, self.offset = log, log.stat().st_size if log.exists() else 0
        self.created = time.time()
        self.asked = threading.Lock()
        self.trainer = Trainer(job_file, **{each["name"]: each["value"] for each in container["env"]})

    @property
    def code(self) -> int | None:
        with self.asked:  # the code is read from a pipe, once: of two threads that ask, the second would see 255
            code = self.trainer.process.exitcode
        return code if code is None or code >= 0 else 128 - code

    def end(self) -> None:
        if self.code is None and self.trainer.process.pid is not None:
            os.kill(self.trainer.process.pid, signal.SIGTERM)
            self.trainer.process.join(self.grace)
            self.trainer.process.kill()

    def seen(self) -> dict[str, Any]:
        state = {"running": {}} if self.code is None else {"terminated": {"exitCode": self.code}}
        status = {"name": self.container, "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": state}
        phase = "Running" if self.code is None else "Failed" if self.code else "Succeeded"
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.created))
        return {
            "metadata": {"name": self.name, "creationTimestamp": created},
            "status": {"phase": phase, "containerStatuses": [status]},
        }


class Cluster:
    """``made`` are the manifests in the order in which they came."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.job: dict[str, Any] | None = None
        self.pods: list[Pod] = []
        self.condition: dict[str, str] | None = None

    def create(self, manifest: dict[str, Any]) -> tuple[int, Any]:
        if self.job is not None:
            return 409, {"reason": "AlreadyExists"}
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        self.made.append(manifest)
        self.job, self.condition = manifest, None
        threading.Thread(target=self._control, args=(manifest,), daemon=True).start()
        return 201, manifest

    def delete(self) -> tuple[int, Any]:
        self.job = None
        for pod in self.pods:
            pod.end()
        self.pods = []
        return 200, {}

    def status(self) -> tuple[int, Any]:
        return 200, {"status": {"conditions": [self.condition] if self.condition else []}}

    def _control(self, manifest: dict[str, Any]) -> None:
        spec = manifest["spec"]
        for number in range(1 + spec["backoffLimit"]):
            pod = Pod(f"{manifest['metadata']['name']}-{number}", spec["template"]["spec"])
            self.pods.append(pod)
            while pod.code is None:
                time.sleep(0.01)
            if self.job is not manifest:
                return
            if pod.code == 0:
                self._end("Complete", "done")
                return
            if _action(spec["podFailurePolicy"]["rules"], pod.code) == "FailJob":
                self._end("Failed", f"PodFailurePolicy: exit code {pod.code}")
                return
        self._end("Failed", "BackoffLimitExceeded")

    def _end(self, kind: str, message: str) -> None:
        self.condition = {"type": kind, "status": "True", "message": message}


def _action(rules: list[dict[str, Any]], code: int) -> str:
    for rule in rules:
        if code in rule.get("onExitCodes", {}).get("values", ()):
            return str(rule["action"])
    return "Count"


@contextmanager
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    """Serve one, and write the file that ``KUBECONFIG`` is to name."""
    made = Cluster()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(*made.create(json.loads(body)))

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(*made.delete())

        def do_GET(self) -> None:
            if found := re.search(r"/pods/([^/]+)/log", self.path):
                self._log(next(pod for pod in made.pods if pod.name == found[1]))
            elif "/pods" in self.path:
                self._answer(200, {"items": [pod.seen() for pod in made.pods]})
            else:
                self._answer(*made.status())

        def _answer(self, status: int, body: Any) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def _log(self, pod: Pod) -> None:
            self.send_response(200)
            self.end_headers()
            ended = False
            while not ended:
                ended = pod.code is not None
                text = pod.log.read_bytes()[pod.offset :] if pod.log.exists() else b""  # it may be starting still
                pod.offset += len(text)
                self.wfile.write(text)
                time.sleep(0.01)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
    config = {"clusters": [here], "contexts": [context], "users": [{"name": "me", "user": {}}]}
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "here", **config}))
    try:
        yield made
    finally:
        made.delete()
        server.shutdown()
        server.server_close()
