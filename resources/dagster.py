"""The outside world as Dagster sees it: manifests handed from asset to asset, and the trainer started through Pipes.

The parts of the installation (`pipelines.wiring.Line`) are handed to assets as they are: a plain object is a resource.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg

from data_contracts.digests import Digest, hex_of
from data_contracts.errors import Missing
from data_contracts.frozen import Frozen
from data_contracts.store import ArtifactStore
from pipelines.stages.train.launcher import TrainerLauncher


class Manifests:
    """Which manifest an asset last made: a digest in a small file; the manifest itself lies in the store.

    Kept for the run, so that two runs of one product do not mix, and for later ones: as the product's newest, or, when
    it judges a model (it has a field ``model``), under that model's digest, so that nothing acts on "the latest".
    """

    def __init__(self, folder: Path, store: ArtifactStore) -> None:
        self.folder = folder
        self.store = store

    def keep(self, asset: dg.AssetKey, product: str, run: str, manifest: Frozen) -> None:
        digest = self.store.put_manifest(manifest)
        model = getattr(manifest, "model", None)
        for scope in (f"{product}/{run}", hex_of(model) if model else product):
            path = self._path(asset, scope)
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}.part")
            part.write_text(digest)
            part.replace(path)

    def newest(self, asset: dg.AssetKey, product: str, run: str) -> Digest | None:
        """The manifest that this run made, else the product's newest."""
        return self.of_run(asset, product, run) or self._read(asset, product)

    def of_run(self, asset: dg.AssetKey, product: str, run: str) -> Digest | None:
        return self._read(asset, f"{product}/{run}")

    def of_model(self, asset: dg.AssetKey, model: Digest) -> Digest | None:
        return self._read(asset, hex_of(model))

    def _read(self, asset: dg.AssetKey, scope: str) -> Digest | None:
        path = self._path(asset, scope)
        return path.read_text() if path.exists() else None

    def _path(self, asset: dg.AssetKey, scope: str) -> Path:
        return self.folder.joinpath(*asset.path, scope, "manifest")


class ManifestIOManager(dg.IOManager):
    """An asset's argument is the manifest of the asset it names, of the type that it is annotated with."""

    def __init__(self, manifests: Manifests) -> None:
        self.manifests = manifests

    def handle_output(self, context: dg.OutputContext, obj: Frozen) -> None:
        self.manifests.keep(context.asset_key, context.partition_key, root_run(context.step_context.dagster_run), obj)

    def load_input(self, context: dg.InputContext) -> Frozen:
        run = root_run(context.step_context.dagster_run)
        digest = self.manifests.newest(context.asset_key, context.partition_key, run)
        if digest is None:
            raise Missing(
                f"{context.asset_key.to_user_string()} was never made for {context.partition_key}: materialize it first"
            )
        kind: type[Frozen] = context.dagster_type.typing_type
        return self.manifests.store.get_manifest(digest, kind)


def root_run(run: dg.DagsterRun) -> str:
    """A run and its re-executions from failure are one run to `Manifests`."""
    return run.root_run_id or run.run_id


class PipesLauncher:
    """`TrainerLauncher` that streams the trainer's log and losses into the Dagster run, wherever the trainer runs:
    ``launcher`` makes one that adds these variables to the trainer's environment, and what the trainer reports lies in
    the run directory, which both see.

    Cancelling the run stops the trainer, which writes a checkpoint first (see `SubprocessLauncher`).
    """

    def __init__(
        self, context: dg.AssetExecutionContext, launcher: Callable[[Mapping[str, str]], TrainerLauncher]
    ) -> None:
        self.context = context
        self.launcher = launcher

    def launch(self, job_file: Path, run_dir: Path) -> None:
        reader = dg.PipesFileMessageReader(str(run_dir / "pipes"))
        with dg.open_pipes_session(self.context.op_execution_context, dg.PipesEnvContextInjector(), reader) as session:
            self.launcher(session.get_bootstrap_env_vars()).launch(job_file, run_dir)
