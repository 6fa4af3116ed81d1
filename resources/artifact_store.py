"""Content-addressed artifacts on any fsspec file system (a local folder by default)."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from pydantic import JsonValue, ValidationError

from data_contracts.digests import (
    Digest,
    canonical_json,
    hex_of,
    sha256_bytes,
    tree_digest,
    tree_files,
)
from data_contracts.errors import Missing, Tampered
from data_contracts.frozen import Frozen

F = TypeVar("F", bound=Frozen)


class FsspecArtifactStore:
    """Blobs under ``blobs/``, trees (a file list blob + files) under ``trees/``, action hits under ``actions/``.

    Trees on a remote store are fetched once into ``cache`` and verified on every use.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.fs, self.root = fsspec.url_to_fs(url, auto_mkdir=True)
        self.cache = cache
        self.local = "file" in (self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,))

    def put_bytes(self, data: bytes) -> Digest:
        digest = sha256_bytes(data)
        path = self._blob(digest)
        if not self.fs.exists(path):
            self._write(path, data)
        return digest

    def get_bytes(self, digest: Digest) -> bytes:
        path = self._blob(digest)
        if not self.fs.exists(path):
            raise Missing(f"{digest} is not in the store {self.root}")
        data: bytes = self.fs.cat_file(path)
        if sha256_bytes(data) != digest:
            raise Tampered(f"{path} was changed: its bytes do not match its name")
        return data

    def put_json(self, value: JsonValue) -> Digest:
        return self.put_bytes(canonical_json(value))

    def get_json(self, digest: Digest) -> Any:
        return json.loads(self.get_bytes(digest))

    def put_manifest(self, manifest: Frozen) -> Digest:
        return self.put_bytes(canonical_json(manifest.payload()))

    def get_manifest(self, digest: Digest, kind: type[F]) -> F:
        try:
            return kind.model_validate(self.get_json(digest))
        except ValidationError as error:
            raise Tampered(f"{digest} is not a {kind.__name__}: {error}") from error

    def has(self, digest: Digest) -> bool:
        return bool(self.fs.exists(self._blob(digest)))

    def put_tree(self, folder: Path) -> Digest:
        """Copy a folder in; its file list is written last and is what makes the tree exist."""
        files = tree_files(folder)
        digest = tree_digest(files)
        if self.has(digest):
            return digest
        for name in files:
            with (folder / name).open("rb") as source, self._open_new(self._in_tree(digest, name)) as target:
                shutil.copyfileobj(source, target, 1 << 22)
        self.put_json(dict(files))
        return digest

    def tree(self, digest: Digest) -> Path:
        listed: dict[str, Digest] = self.get_json(digest)
        folder = Path(self.root) / "trees" / hex_of(digest) if self.local else self.cache / hex_of(digest)
        if not self.local and not folder.exists():
            self._download(digest, listed, folder)
        if not folder.exists():
            raise Missing(f"the files of {digest} are not in the store {self.root}")
        found = tree_files(folder)
        for name in sorted(set(listed) | set(found)):
            if name not in found:
                raise Missing(f"{folder / name} is missing")
            if listed.get(name) != found[name]:
                raise Tampered(f"{folder / name} was changed: its bytes do not match tree {digest}")
        return folder

    def delete(self, digest: Digest) -> None:
        if self.has(digest):
            self.fs.rm_file(self._blob(digest))

    def remembered(self) -> Iterator[Digest]:
        folder = f"{self.root}/actions"
        if not self.fs.exists(folder):
            return
        for path in sorted(self.fs.ls(folder, detail=False)):
            if len(Path(path).name) == 64:  # not a file that is being written
                yield self.fs.cat_file(path).decode()

    def get_action(self, key: Digest) -> Digest | None:
        path = f"{self.root}/actions/{hex_of(key)}"
        return self.fs.cat_file(path).decode() if self.fs.exists(path) else None

    def put_action(self, key: Digest, manifest: Digest) -> None:
        self._write(f"{self.root}/actions/{hex_of(key)}", manifest.encode())

    def _blob(self, digest: Digest) -> str:
        name = hex_of(digest)
        return f"{self.root}/blobs/{name[:2]}/{name}"

    def _in_tree(self, digest: Digest, name: str) -> str:
        return f"{self.root}/trees/{hex_of(digest)}/{name}"

    def _write(self, path: str, data: bytes) -> None:
        with self._open_new(path) as handle:
            handle.write(data)

    def _open_new(self, path: str) -> Any:
        """A write handle that leaves the whole file or none: rename on a local disk, atomic put on object stores."""
        return _Renamed(Path(path)) if self.local else self.fs.open(path, "wb")

    def _download(self, digest: Digest, listed: dict[str, Digest], folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent))
        for name in listed:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            self.fs.get_file(self._in_tree(digest, name), str(part / name))
        part.rename(folder)


class _Renamed:
    """Write to a neighbour, fsync, rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")

    def __enter__(self) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = self.part.open("wb")
        return self.handle

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.handle.flush()
            os.fsync(self.handle.fileno())
        self.handle.close()
        if kind is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)
