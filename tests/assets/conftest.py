"""A small line behind Dagster: real store, log, keys and gate; made-up scores, no model, no server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.dagster import ManifestIOManager, Manifests
from tests.support.line import SmallLine

PRODUCT = "billing-assistant"
"""The partition: a product that the code location knows."""


@pytest.fixture
def small(tmp_path: Path) -> SmallLine:
    return SmallLine(tmp_path / "small", PRODUCT)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Runner:
    """Materializes assets of the one product in this process; the instance remembers."""

    def __init__(self, small: SmallLine, instance: dg.DagsterInstance) -> None:
        self.small = small
        self.instance = instance
        self.manifests = Manifests(small.parts.home / "manifests", small.parts.store)

    @property
    def resources(self) -> dict[str, Any]:
        return {
            "line": self.small.parts,
            "manifests": self.manifests,
            "io_manager": ManifestIOManager(self.manifests),
        }

    def __call__(self, assets: list[Any], config: dict[str, dict[str, Any]] | None = None, **more: Any) -> Any:
        """``config`` maps step -> its config."""
        return dg.materialize(
            assets,
            instance=self.instance,
            resources=self.resources,
            partition_key=PRODUCT,
            run_config={"ops": {step: {"config": values} for step, values in (config or {}).items()}},
            raise_on_error=False,
            **more,
        )


@pytest.fixture
def run(small: SmallLine, instance: dg.DagsterInstance) -> Runner:
    return Runner(small, instance)


def reason(result: Any) -> str:
    """Why a run's first failed step failed."""
    error = next(event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    while error.cause is not None:
        error = error.cause
    return str(error.message)
