"""The trainer as a Kubernetes Job: the manifest keeps to the published schema; stops, failures and ends come back."""

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from data_contracts.errors import BadInput, Refused, Unavailable
from pipelines.recipes.product import ROOT
from pipelines.stages.train.checkpoints import Checkpoints
from pipelines.stages.train.job import RunFiles
from pipelines.stages.train.launcher import GRACE_S
from resources.kubernetes_job import KubernetesPlace, render
from resources.kubernetes_launcher import KubernetesLauncher
from resources.trainer_launcher import open_launcher
from tests.support.kubernetes import Cluster, cluster
from tests.support.tiny import make_tiny_base
from tests.support.trainer import finish, reached, weights_digest
from tests.support.training import make_job, make_recipe

RECIPE = make_recipe(sft={"steps": 12, "checkpoint_every": 3, "eval_every": 4})
GPUS = {"gpu": "nvidia.com/gpu", "secrets": ("mlflow",), "service_account": "trainer", "node_selector": {"gpu": "h100"}}
GPUS |= {"tolerations": ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},)}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("volume")
    make_tiny_base(folder / "tiny")
    return folder


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with cluster(tmp_path / "kubeconfig") as made:
        yield made


def _place(volume: Path, **changes: Any) -> KubernetesPlace:
    place = {"image": "registry.example/assay:1", "checkout": str(ROOT), "namespace": "training"}
    disk = {"volume_claim": "assay", "mount": str(volume), "cpu": "2", "memory": "4Gi"}
    return KubernetesPlace.model_validate(place | disk | changes)


def _launcher(volume: Path) -> KubernetesLauncher:
    return KubernetesLauncher(_place(volume), {"OMP_NUM_THREADS": "1"}, poll=0.02)


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
@pytest.mark.parametrize("changes", [{}, GPUS], ids=["plain", "gpus"])
def test_the_manifest_keeps_to_the_schema(volume: Path, version: str, changes: dict[str, Any]) -> None:
    recipe = make_recipe(parallel={"processes": 2})
    job_file = make_job(volume / "rendered", volume / "tiny", recipe)
    manifest = render(_place(volume, **changes), job_file, job_file.parent, {"MLFLOW_TRACKING_URI": "http://mlflow"})

    kubernetes_validate.validate(manifest, version, strict=True)

    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][1:] == ["-m", "pipelines.stages.train.entry", str(job_file)]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == ("2" if changes else None)
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"]) == ("Never", GRACE_S)
    rules = {
        rule["onExitCodes"]["values"][0]: rule["action"] for rule in manifest["spec"]["podFailurePolicy"]["rules"][1:]
    }
    assert rules == {75: "Count", 1: "FailJob"}


def test_a_preempted_trainer_starts_again_and_ends_as_an_uninterrupted_one(
    volume: Path, kubernetes: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make_job(volume / "whole", volume / "tiny", RECIPE)
    job = make_job(volume / "preempted", volume / "tiny", RECIPE)
    _then(reached(job, 5), lambda: kubernetes.pods[0].trainer.signal_when(signal.SIGTERM, lambda: True))

    _launcher(volume).launch(job, job.parent)

    assert weights_digest(job) == finish(whole)
    told = capsys.readouterr().out
    assert "stopped; the same command goes on" in told
    assert "resuming from step-" in told
    assert "sft step 12/12  validation loss" in told
    assert (len(kubernetes.made), kubernetes.job) == (1, None)


def test_a_trainer_that_refuses_fails_the_job_at_once_with_its_reason(volume: Path, kubernetes: Cluster) -> None:
    job = make_job(volume / "refused", volume / "tiny", make_recipe(max_length=16))
    with pytest.raises(Refused, match=r"code 1: .*max_length"):
        _launcher(volume).launch(job, job.parent)
    assert kubernetes.job is None
    assert (job.parent / "trainer.log").read_text().count("training failed") == 1


def test_ending_the_wait_deletes_the_job_after_a_checkpoint(volume: Path, kubernetes: Cluster) -> None:
    job = make_job(volume / "cancelled", volume / "tiny", RECIPE)
    _then(reached(job, 4), _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt):
        _launcher(volume).launch(job, job.parent)
    assert (kubernetes.job, kubernetes.pods) == (None, [])
    newest = Checkpoints(str(RunFiles(job.parent).checkpoints)).steps()[0]
    assert newest != 3
    assert not RunFiles(job.parent).result.exists()


def test_a_job_that_is_there_already_is_waited_for(volume: Path, kubernetes: Cluster) -> None:
    job = make_job(volume / "left", volume / "tiny", RECIPE)
    kubernetes.create(render(_place(volume), job, job.parent, {"OMP_NUM_THREADS": "1"}))
    _launcher(volume).launch(job, job.parent)
    assert len(kubernetes.made) == 1
    assert RunFiles(job.parent).result.exists()


def test_a_run_that_is_not_on_the_volume_is_refused(volume: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "run", volume / "tiny", RECIPE)
    with pytest.raises(BadInput, match=r"the run directory .* is not on the volume .* set ASSAY_HOME"):
        _launcher(volume).launch(job, job.parent)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("image: x", "checkout: Field required"), ("- x", "valid dictionary"), (": :", "cannot be read")],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(BadInput, match=rf"cluster\.yaml.*{complaint}"):
        open_launcher(f"k8s:{tmp_path / 'cluster.yaml'}", "", {})


def test_the_shipped_example_is_read() -> None:
    launcher = open_launcher(f"k8s:{ROOT / 'pipelines' / 'launchers' / 'kubernetes.yaml'}", "", {})
    assert isinstance(launcher, KubernetesLauncher)


def test_a_cluster_that_is_away_is_named(volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(volume / "away", volume / "tiny", RECIPE)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(Unavailable, match="set KUBECONFIG"):
        _launcher(volume).launch(job, job.parent)
    with cluster(tmp_path / "kubeconfig"):
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(Unavailable, match="cannot be reached"):
        _launcher(volume).launch(job, job.parent)


def _then(moment: Callable[[], bool], act: Callable[[], object]) -> None:
    def wait() -> None:
        while not moment():
            time.sleep(0.001)
        act()

    threading.Thread(target=wait, daemon=True).start()
