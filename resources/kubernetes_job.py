"""A training run as a Kubernetes Job (batch/v1): what the cluster is asked for, without asking it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from data_contracts.digests import hex_of, sha256_bytes
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from pipelines.stages.train.job import STOPPED, TrainJob
from pipelines.stages.train.launcher import GRACE_S

CONTAINER = "trainer"
_FAILED = 1


class KubernetesPlace(Frozen):
    """Where and as what the trainer runs: the file that ``ASSAY_LAUNCHER=k8s:FILE`` names.

    ``volume_claim`` is a PersistentVolumeClaim that many can write (ReadWriteMany), mounted at ``mount`` in the Job and
    wherever the line runs; ``ASSAY_HOME`` lies below. ``image`` holds this checkout at ``checkout``, set up by
    ``make setup``.
    """

    image: str = Field(min_length=1)
    checkout: str = Field(pattern="^/")
    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    volume_claim: str = Field(min_length=1)
    mount: str = Field(pattern="^/")
    cpu: str = Field(pattern=r"^[0-9]+m?$")
    memory: str = Field(pattern=r"^[0-9]+(Mi|Gi)$")
    gpu: str | None = None
    """The name of the GPU resource, as ``nvidia.com/gpu``: one for each process of the recipe."""
    user: int = Field(default=1000, ge=1)
    """The numeric user that it runs as; it must be able to write the volume."""
    service_account: str | None = None
    secrets: tuple[str, ...] = ()
    """Secrets whose keys become environment variables, as the token of an MLflow server."""
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    retries: int = Field(default=3, ge=0)
    """How often a trainer that was stopped or killed starts again; an eviction does not count."""


def load_place(path: Path) -> KubernetesPlace:
    """Read the file. Raises `BadInput` that names file and key."""
    try:
        return KubernetesPlace.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"ASSAY_LAUNCHER: {path} cannot be read: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise BadInput(f"{path}: {found}") from error


def job_name(run_dir: Path) -> str:
    """One name for one run directory: a second Job for it cannot be made."""
    return f"assay-train-{hex_of(sha256_bytes(str(run_dir).encode()))[:16]}"


def render(place: KubernetesPlace, job_file: Path, run_dir: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The manifest. Raises `BadInput` for a run that does not lie on the volume."""
    job = TrainJob.model_validate_json(job_file.read_bytes())
    for what, path in (("the run directory", run_dir), ("the base", job.base), ("the parent", job.parent)):
        if path is not None and not path.is_relative_to(place.mount):
            raise BadInput(
                f"{what} {path} is not on the volume that the Job mounts at {place.mount}: set ASSAY_HOME to a folder "
                "on it"
            )
    labels = {"app.kubernetes.io/name": "assay", "app.kubernetes.io/component": "trainer"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(run_dir), "namespace": place.namespace, "labels": labels},
        "spec": {
            "backoffLimit": place.retries,
            "ttlSecondsAfterFinished": 86400,
            "podReplacementPolicy": "Failed",  # one writer: the next one starts when the last one has ended
            "podFailurePolicy": {"rules": _rules()},
            "template": {"metadata": {"labels": labels}, "spec": _pod(place, job, job_file, environment)},
        },
    }


def _rules() -> list[dict[str, Any]]:
    def exit_code(action: str, code: int) -> dict[str, Any]:
        return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [code]}}

    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        exit_code("Count", STOPPED),  # there is a checkpoint to go on from
        exit_code("FailJob", _FAILED),  # the same again would fail again
    ]


def _pod(place: KubernetesPlace, job: TrainJob, job_file: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    processes = 1 if job.recipe.parallel is None else job.recipe.parallel.processes
    resources: dict[str, str] = {"cpu": place.cpu, "memory": place.memory}
    if place.gpu is not None:
        resources[place.gpu] = str(processes)
    container = {
        "name": CONTAINER,
        "image": place.image,
        "command": [f"{place.checkout}/.venv/bin/python", "-m", "pipelines.stages.train.entry", str(job_file)],
        "workingDir": place.checkout,
        "env": [{"name": name, "value": value} for name, value in sorted(environment.items())],
        "envFrom": [{"secretRef": {"name": name}} for name in place.secrets],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "home", "mountPath": place.mount}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",  # podFailurePolicy asks for it
        "terminationGracePeriodSeconds": GRACE_S,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": place.user, "fsGroup": place.user},
        "nodeSelector": place.node_selector,
        "tolerations": list(place.tolerations),
        "containers": [container],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": place.volume_claim}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},  # NCCL passes batches through it; it counts as memory
        ],
    }
    return pod if place.service_account is None else pod | {"serviceAccountName": place.service_account}
