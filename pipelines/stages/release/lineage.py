"""What a model was made from, by the digests in its manifests: checkpoints and data sets, nearest first."""

from collections.abc import Iterable

from data_contracts.digests import Digest
from data_contracts.manifests import CheckpointManifest, DatasetManifest, ModelManifest
from data_contracts.store import ArtifactStore


def checkpoints(store: ArtifactStore, model: ModelManifest) -> list[CheckpointManifest]:
    """The selected checkpoint and those it was trained on from, newest first."""
    found: list[CheckpointManifest] = []
    digest: Digest | None = model.checkpoint
    while digest is not None:
        found.append(store.get_manifest(digest, CheckpointManifest))
        digest = found[-1].parent
    return found


def datasets(store: ArtifactStore, heads: Iterable[Digest]) -> dict[Digest, DatasetManifest]:
    """These data sets and all they were made from, back to the raw ones, each once."""
    found: dict[Digest, DatasetManifest] = {}
    waiting = list(heads)
    while waiting:
        digest = waiting.pop(0)
        if digest not in found:
            found[digest] = store.get_manifest(digest, DatasetManifest)
            waiting += found[digest].inputs
    return found


def training_sets(model: ModelManifest, steps: Iterable[CheckpointManifest]) -> list[Digest]:
    """Every data set that the model or one of its checkpoints names, in that order."""
    return list(dict.fromkeys([*model.datasets, *(digest for step in steps for digest in step.datasets)]))
