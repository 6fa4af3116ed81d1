"""Run the trainer as a Kubernetes Job: its log is printed here, and it is deleted with whoever waits for it."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.train.launcher import GRACE_S
from resources.kubernetes_job import KubernetesPlace, job_name, render
from resources.trainer_launcher import judge

_CONFLICT, _GONE, _INVALID = 409, 404, 422


class KubernetesLauncher:
    """The cluster is the one that this process runs in, else that of the kubeconfig. ``poll`` is in seconds."""

    def __init__(self, place: KubernetesPlace, environment: Mapping[str, str], poll: float = 2) -> None:
        self.place = place
        self.environment = environment
        self.poll = poll

    def launch(self, job_file: Path, run_dir: Path) -> None:
        """See `TrainerLauncher`. A Job of this run that is there already, because who waited for it was killed, is
        waited for."""
        manifest = render(self.place, job_file, run_dir, self.environment)
        with _reachable():
            batch, core = _clients()
            name, namespace = job_name(run_dir), self.place.namespace
            _create(batch, namespace, manifest)
            try:
                code = self._followed(batch, core, name)
            finally:
                self._delete(batch, core, name)
        judge(code, run_dir)

    def _followed(self, batch: Any, core: Any, name: str) -> int:
        """Print the log of each of its pods in turn, to the end of the Job; the exit code of the last one."""
        told: set[str] = set()
        code: int | None = None
        while True:
            status = batch.read_namespaced_job_status(name, self.place.namespace).status
            for pod in self._pods(core, name):
                if pod.metadata.name not in told and pod.status.phase in ("Running", "Succeeded", "Failed"):
                    told.add(pod.metadata.name)
                    self._print_log(core, pod.metadata.name)
                code = _exit_code(pod, code)
            ended = [each for each in status.conditions or [] if each.type in ("Complete", "Failed")]
            if ended and code is None:
                raise Unavailable(f"the Job {name} ended without a pod: {ended[0].message}")
            if ended and code is not None:
                return code
            time.sleep(self.poll)

    def _print_log(self, core: Any, pod: str) -> None:
        from urllib3.exceptions import HTTPError

        try:
            for line in core.read_namespaced_pod_log(pod, self.place.namespace, follow=True, _preload_content=False):
                print(line.decode(errors="replace"), end="", flush=True)
        except HTTPError as error:
            print(f"the log of {pod} is cut short here ({error}); the training goes on", flush=True)

    def _pods(self, core: Any, name: str) -> list[Any]:
        found = core.list_namespaced_pod(self.place.namespace, label_selector=f"batch.kubernetes.io/job-name={name}")
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)

    def _delete(self, batch: Any, core: Any, name: str) -> None:
        """And wait until its trainer has written its checkpoint."""
        from kubernetes.client import ApiException

        try:
            batch.delete_namespaced_job(name, self.place.namespace, propagation_policy="Background")
        except ApiException as error:
            if error.status != _GONE:
                raise
        deadline = time.monotonic() + GRACE_S
        while self._pods(core, name) and time.monotonic() < deadline:
            time.sleep(self.poll)


def _create(batch: Any, namespace: str, manifest: dict[str, Any]) -> None:
    from kubernetes.client import ApiException

    try:
        batch.create_namespaced_job(namespace, manifest)
    except ApiException as error:
        if error.status == _INVALID:
            raise BadInput(f"the cluster refuses the Job: {error.body}") from error
        if error.status != _CONFLICT:
            raise


def _exit_code(pod: Any, default: int | None) -> int | None:
    ended = [each.state.terminated for each in pod.status.container_statuses or [] if each.state.terminated is not None]
    return int(ended[0].exit_code) if ended else default


def _clients() -> tuple[Any, Any]:
    from kubernetes import client, config

    kubeconfig = os.environ.get("KUBECONFIG")
    config.load_config(**({"config_file": kubeconfig} if kubeconfig else {}))
    return client.BatchV1Api(), client.CoreV1Api()


@contextmanager
def _reachable() -> Iterator[None]:
    from kubernetes.client import ApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ConfigException as error:
        raise Unavailable(f"no Kubernetes cluster is configured here: {error}; set KUBECONFIG") from error
    except ApiException as error:
        raise Unavailable(f"the Kubernetes cluster answers {error.status} {error.reason}: {error.body}") from error
    except HTTPError as error:
        raise Unavailable(f"the Kubernetes cluster cannot be reached: {error}") from error
