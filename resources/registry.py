"""The model registry in MLflow: versions that hold plain files, found again by the release's digest; aliases point.

Adapters are kept as files of a logged model: the transformers flavour would write a PEFT model back corrupted.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest, hex_of
from data_contracts.errors import Missing

_RELEASE_TAG = "assay.release"
_STATE_TAG = "assay.state"


class MlflowRegistry:
    """``uri`` is a SQLite file or an MLflow server; ``artifacts`` the folder that keeps versions' files."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self.uri = uri
        self.artifacts = artifacts

    def register(self, product: str, release: Digest, files: Mapping[str, Path], tags: Mapping[str, str]) -> str:
        """The number of the version that holds these files (path in the version -> file or folder), made once.

        The version is created last: a crash before leaves a logged model that nothing points to.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        # On SQLite, MLflow looks the logged model up at the process's own address, not at the client's.
        mlflow.set_tracking_uri(self.uri)
        try:
            self._client.create_registered_model(product)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self._version(product, release)
        if known is not None:
            return known
        logged = self._client.create_logged_model(
            self._experiment(product), name=f"release-{hex_of(release)[:16]}", tags=dict(tags), model_type="adapter"
        )
        for name, path in files.items():
            if path.is_dir():
                self._client.log_model_artifacts(logged.model_id, str(path), name)
            else:
                self._client.log_model_artifact(logged.model_id, str(path))
        self._client.finalize_logged_model(logged.model_id, "READY")
        version = self._client.create_model_version(
            product,
            source=logged.artifact_location,
            tags={**tags, _RELEASE_TAG: release},
            model_id=logged.model_id,
        )
        return str(version.version)

    def alias(self, product: str, name: str) -> Digest | None:
        """The release an alias points to; ``None`` when there is no such alias or version."""
        from mlflow.exceptions import MlflowException

        try:
            version = self._client.get_model_version_by_alias(product, name)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        release: str | None = version.tags.get(_RELEASE_TAG)
        return release

    def set_alias(self, product: str, name: str, release: Digest | None) -> None:
        """Point an alias to a release, or take it away."""
        if release is None:
            if self.alias(product, name) is not None:
                self._client.delete_registered_model_alias(product, name)
            return
        version = self._version(product, release)
        if version is None:
            raise Missing(f"release {release} is not in the model registry {self.uri}: register it again")
        self._client.set_registered_model_alias(product, name, version)

    def states(self, product: str) -> Mapping[Digest, str | None]:
        """The tag that tells the state of each release which the registry has; ``None`` where there is none yet."""
        found = self._client.search_model_versions(f"name = '{product}'")
        return {v.tags[_RELEASE_TAG]: v.tags.get(_STATE_TAG) for v in found if _RELEASE_TAG in v.tags}

    def set_state(self, product: str, release: Digest, state: str) -> None:
        """Tag a release's version with its state."""
        version = self._version(product, release)
        if version is None:
            raise Missing(f"release {release} is not in the model registry {self.uri}: register it again")
        self._client.set_model_version_tag(product, version, _STATE_TAG, state)

    @cached_property
    def _client(self) -> Any:
        from mlflow import MlflowClient

        self.artifacts.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _experiment(self, product: str) -> str:
        name = f"{product}-releases"
        known = self._client.get_experiment_by_name(name)
        if known is not None:
            return str(known.experiment_id)
        return str(self._client.create_experiment(name, artifact_location=(self.artifacts / name).resolve().as_uri()))

    def _version(self, product: str, release: Digest) -> str | None:
        found = self._client.search_model_versions(f"name = '{product}' and tag.`{_RELEASE_TAG}` = '{release}'")
        return str(found[0].version) if found else None
