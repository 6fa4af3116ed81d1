"""The protocol of the artifact store; `resources.artifact_store` implements it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import JsonValue

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

F = TypeVar("F", bound=Frozen)


class ArtifactStore(Protocol):
    """Content-addressed: what is read is checked against its name, what is written is whole or absent."""

    def put_json(self, value: JsonValue) -> Digest: ...
    def get_json(self, digest: Digest) -> Any: ...
    def put_manifest(self, manifest: Frozen) -> Digest: ...
    def get_manifest(self, digest: Digest, kind: type[F]) -> F: ...
    def put_bytes(self, data: bytes) -> Digest: ...
    def get_bytes(self, digest: Digest) -> bytes: ...
    def put_tree(self, folder: Path, tenant: str | None = None) -> Digest:
        """The digest of the plain bytes. What is a tenant's (trained weights) is sealed with its key, a copy each; a
        base is nobody's. Raises `Shredded` for a tenant whose key was destroyed."""
        ...

    def tree(self, digest: Digest) -> Path:
        """A local folder holding a tree that was put plain, verified. Raises `Tampered` or `Missing`."""
        ...

    def opened(self, digest: Digest) -> AbstractContextManager[Path]:
        """The same for any tree, named by its 64 hex digits; what was sealed is gone after the block. Raises `Shredded`
        too."""
        ...

    def readable(self, digest: Digest) -> bool:
        """Whether the store has the tree, and the key if it is sealed. Checks no bytes."""
        ...

    def seal(self, digest: Digest, tenant: str) -> None:
        """Seal what was put plain, and delete the plain files: no more than that where they are damaged, or the tenant
        was shredded. Safe to repeat."""
        ...

    def sweep(self) -> None:
        """Delete what killed processes had opened. Safe to repeat."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder for plain weights, gone after the block: in memory where the machine has a file system for that, and
        for this user only."""
        ...

    def has(self, digest: Digest) -> bool: ...
    def delete(self, digest: Digest) -> None:
        """Take a blob out of the store. Safe to repeat."""
        ...

    def remembered(self) -> Iterator[Digest]:
        """The manifests that action keys lead to."""
        ...

    def get_action(self, key: Digest) -> Digest | None: ...
    def put_action(self, key: Digest, manifest: Digest) -> None: ...
