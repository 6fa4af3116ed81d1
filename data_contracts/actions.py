"""Skip work that was done: a step's action key names its code, configuration and inputs; a verified hit returns the
earlier manifest."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from data_contracts.digests import Digest, sha256_bytes, sha256_file, sha256_json
from data_contracts.frozen import Frozen
from data_contracts.store import ArtifactStore

M = TypeVar("M", bound=Frozen)
_LOCK = Path(__file__).parents[1] / "requirements" / "core.txt"


def code_version(*modules: str) -> Digest:
    """Digest of the source bytes of the named modules, which are found without being imported."""
    sources: dict[str, Digest] = {}
    for name in sorted(modules):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ValueError(f"no source for module {name}")
        sources[name] = sha256_file(Path(spec.origin))
    return sha256_json(sources)


def dependency_lock() -> Digest:
    return sha256_bytes(_LOCK.read_bytes())


def action_key(step: str, code: Digest, config: object, inputs: Iterable[Digest], seed: int = 0) -> Digest:
    """Name of a piece of work; ``config`` is any JSON value."""
    return sha256_json(
        {
            "step": step,
            "code": code,
            "config": config,
            "inputs": list(inputs),
            "lock": dependency_lock(),
            "seed": seed,
        }
    )


def remembered(
    store: ArtifactStore,
    key: Digest,
    kind: type[M],
    work: Callable[[], M],
    whole: Callable[[M], bool] = lambda manifest: True,
) -> tuple[M, bool]:
    """The manifest for ``key`` and whether it was a hit.

    ``work`` runs when nothing is remembered, or when ``whole`` says that what the manifest names is not all there.
    """
    known = store.get_action(key)
    if known is not None and store.has(known):
        manifest = store.get_manifest(known, kind)
        if whole(manifest):
            return manifest, True
    manifest = work()
    store.put_action(key, store.put_manifest(manifest))
    return manifest, False
