"""The provenance of a release: an in-toto statement (v1) with SLSA's build provenance (v1) as its predicate.

It names things by digest and holds no time, host or row text: times are the audit log's.
"""

from collections.abc import Mapping, Sequence
from functools import cache

from pydantic import JsonValue

from data_contracts.digests import Digest, hex_of, sha256_bytes, sha256_file
from data_contracts.manifests import CheckpointManifest, ModelManifest, ReleaseManifest
from data_contracts.provenance import BUILD_TYPE, PREDICATE, STATEMENT
from data_contracts.store import ArtifactStore
from pipelines.recipes.product import ROOT
from pipelines.stages.protocols import Parts
from pipelines.stages.release.lineage import checkpoints, datasets, training_sets
from pipelines.stages.train.run_record import commit


def statement(
    parts: Parts, release: ReleaseManifest, model: ModelManifest, files: Mapping[str, Digest]
) -> dict[str, JsonValue]:
    """Subjects: every file. Materials: what the model was made from, the code, and the locks it was installed by."""
    steps = checkpoints(parts.store, model)
    materials: list[JsonValue] = [*dependencies(parts.store, model, steps), *_locks(), *_code(parts, steps)]
    builder = sha256_bytes(parts.signer.public_key().encode())
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": hex_of(digest)}} for name, digest in sorted(files.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "product": release.product,
                    "tenant": release.tenant,
                    "environment": release.environment,
                    "policy": release.policy,
                    "serving": release.serving_config,
                    "displaced": release.displaced_champion,
                },
                "internalParameters": {"actions": {step.stage: step.action_key for step in steps}},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": f"urn:assay:builder:{hex_of(builder)}", "version": {"commit": _commit()}},
                "metadata": {"invocationId": release.action_key},
            },
        },
    }


def dependencies(
    store: ArtifactStore, model: ModelManifest, steps: Sequence[CheckpointManifest]
) -> list[dict[str, JsonValue]]:
    """What the manifests say that it was made from: base, recipes, data sets, environments, each by its document."""
    sets = datasets(store, training_sets(model, steps))
    named = [
        ("base", model.base),
        *((f"{step.stage} recipe", step.recipe) for step in steps),
        *((f"{step.stage} environment", step.environment) for step in steps),
        *((f"data set {each.stage}", digest) for digest, each in sets.items()),
    ]
    return [{"name": name, "digest": {"sha256": hex_of(digest)}} for name, digest in named]


@cache
def _commit() -> str:
    """That of the code which this process began with."""
    return commit()


def _locks() -> list[dict[str, JsonValue]]:
    locks = sorted((ROOT / "requirements").glob("*.txt"))
    return [{"name": str(lock.relative_to(ROOT)), "digest": {"sha256": hex_of(sha256_file(lock))}} for lock in locks]


def _code(parts: Parts, steps: Sequence[CheckpointManifest]) -> list[dict[str, JsonValue]]:
    """The project's commit at the registration, and at each training that is on record. `modified` tells of tracked
    files that were changed since the commit."""
    runs = [(step.stage, parts.runs.find(action_key=step.action_key)) for step in steps]
    found = {f"{stage} code": past[0].commit for stage, past in runs if past} | {"code": _commit()}
    return [
        {
            "name": name,
            "digest": {"gitCommit": text.removesuffix("+")},
            "annotations": {"modified": text.endswith("+")},
        }
        for name, text in sorted(found.items())
        if text != "none"
    ]
