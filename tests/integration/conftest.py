"""One real vLLM with the tiny base for all integration tests: its start is most of their time."""

from collections.abc import Iterator

import pytest

from data_contracts.manifests import BaseManifest
from pipelines.settings import Settings
from pipelines.wiring import Line
from resources.vllm_server import VllmServer
from tests.support.adapters import tiny_base
from tests.support.ports import free_ports


@pytest.fixture(scope="session")
def tiny_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """An installation of its own, with free ports; everything it started is stopped at the end."""
    home = tmp_path_factory.mktemp("line")
    gateway, vllm, merged, mlflow, dagster = free_ports(5)
    line = Line(
        Settings(
            home=home,
            trust_root=home.parent / "trust",
            products=home / "products",
            serve_slots=6,
            serve_max_model_len=2048,
            reconcile_seconds=1,
            gateway_port=gateway,
            vllm_port=vllm,
            merged_port=merged,
            mlflow_port=mlflow,
            dagster_port=dagster,
        )
    )
    if not line.settings.serve_python.exists():
        pytest.skip(f"no serving environment at {line.settings.serve_python}: run `make setup`")
    line.log.signer_line()
    yield line
    line.supervisor.down()


@pytest.fixture(scope="session")
def tiny_base_manifest(tiny_line: Line, tmp_path_factory: pytest.TempPathFactory) -> BaseManifest:
    return tiny_base(tiny_line.store, tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def tiny_vllm(tiny_line: Line, tiny_base_manifest: BaseManifest) -> VllmServer:
    """The running server: 6 adapter slots, of which one is the base's and one stays empty."""
    tiny_line.server.ensure_running(tiny_base_manifest)
    return tiny_line.server
