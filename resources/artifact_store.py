"""Content-addressed artifacts on any fsspec file system (a local folder by default)."""

import errno
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import fsspec
from pydantic import JsonValue, ValidationError

from data_contracts.digests import (
    Digest,
    DigestingWriter,
    canonical_json,
    hex_of,
    sha256_bytes,
    tree_digest,
    tree_files,
)
from data_contracts.errors import Missing, Shredded, Tampered, Unavailable
from data_contracts.frozen import Frozen
from resources.scratch import scratch, sweep
from resources.tenant_keys import TenantKeys

F = TypeVar("F", bound=Frozen)

_AGE = ".age"
_PART = ".part"


class _Sealed(NamedTuple):
    """A tenant's copy of a tree, sealed for the key ``recipient``, and the names of the files that it has."""

    tenant: str
    recipient: str
    names: set[str]


class FsspecArtifactStore:
    """Blobs under ``blobs/``, trees (a file list blob + files) under ``trees/``, action hits under ``actions/``. Trees
    of tenants lie under ``sealed/<tree>/<tenant>/<public key>/``, each file as ``<name>.age``.

    Plain trees on a remote store are fetched once into ``cache`` and verified on every use. Sealed ones are opened in
    memory, each time anew.
    """

    def __init__(self, url: str, cache: Path, keys: TenantKeys) -> None:
        self.fs, self.root = fsspec.url_to_fs(url, auto_mkdir=True)
        self.cache = cache
        self.keys = keys
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

    def put_tree(self, folder: Path, tenant: str | None = None) -> Digest:
        """Copy a folder in; its file list is written last and is what makes the tree exist."""
        files = tree_files(folder)
        digest = tree_digest(files)
        recipient = "" if tenant is None else self.keys.recipient(tenant)
        if self.has(digest) and self._is_there(digest, files, tenant, recipient):
            return digest
        for name in files:
            target = self._in_tree(digest, name)
            if tenant is not None:
                target = f"{self._sealed_root(digest)}/{tenant}/{recipient}/{name}{_AGE}"
            with (folder / name).open("rb") as source, self._open_new(target) as out:
                if tenant is None:
                    shutil.copyfileobj(source, out, 1 << 22)
                else:
                    self.keys.seal(tenant, source, out)
        self.put_json(dict(files))
        return digest

    def tree(self, digest: Digest) -> Path:
        listed: dict[str, Digest] = self.get_json(digest)
        folder = Path(self.root) / "trees" / hex_of(digest) if self.local else self.cache / hex_of(digest)
        if not folder.exists():
            if self.local or not self._is_plain(digest):
                raise Missing(f"the files of {digest} are not in the store {self.root}, or only sealed for a tenant")
            self._download(digest, listed, folder)
        _check_names(listed, found := tree_files(folder), folder)
        for name in listed:
            if listed[name] != found[name]:
                raise Tampered(f"{folder / name} was changed: its bytes do not match tree {digest}")
        return folder

    @contextmanager
    def opened(self, digest: Digest) -> Iterator[Path]:
        listed: dict[str, Digest] = self.get_json(digest)
        copy = self._sealed_copy(digest)
        if copy is None:
            yield self.tree(digest)
            return
        with self.scratch() as place:
            folder = place / hex_of(digest)
            self._unseal(digest, listed, copy, folder)
            yield folder

    def readable(self, digest: Digest) -> bool:
        try:
            return self.has(digest) and (self._sealed_copy(digest) is not None or self._is_plain(digest))
        except (Shredded, Missing):
            return False

    def seal(self, digest: Digest, tenant: str) -> None:
        if self._is_plain(digest):
            with suppress(Missing, Tampered, Shredded):
                self.put_tree(self.tree(digest), tenant)
            self.fs.rm(f"{self.root}/trees/{hex_of(digest)}", recursive=True)
        shutil.rmtree(self.cache / hex_of(digest), ignore_errors=True)

    def sweep(self) -> None:
        sweep(self.cache)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with scratch(self.cache) as folder:
            yield folder

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

    def _sealed_root(self, digest: Digest) -> str:
        return f"{self.root}/sealed/{hex_of(digest)}"

    def _is_plain(self, digest: Digest) -> bool:
        return bool(self.fs.exists(f"{self.root}/trees/{hex_of(digest)}"))

    def _is_there(self, digest: Digest, names: Collection[str], tenant: str | None, recipient: str) -> bool:
        """Whether this copy has all its files, of which each is whole or absent."""
        if tenant is None:
            return all(self.fs.exists(self._in_tree(digest, name)) for name in names)
        return any(each == (tenant, recipient, set(names)) for each in self._sealed_copies(digest))

    def _sealed_copies(self, digest: Digest) -> list[_Sealed]:
        root = self._sealed_root(digest)
        self.fs.invalidate_cache()
        found: dict[tuple[str, str], set[str]] = {}
        for path in self.fs.find(root) if self.fs.exists(root) else ():
            tenant, recipient, name = path[path.index(root) + len(root) + 1 :].split("/", 2)
            if not name.endswith(_PART):
                found.setdefault((tenant, recipient), set()).add(name.removesuffix(_AGE))
        return [_Sealed(*of, names) for of, names in sorted(found.items())]

    def _sealed_copy(self, digest: Digest) -> _Sealed | None:
        """The one that can be opened; ``None`` where the tree is plain. Raises `Shredded`, and `Missing` where a vault
        is not there."""
        copies = self._sealed_copies(digest)
        for copy in copies:
            if self.keys.public(copy.tenant) == copy.recipient:
                return copy
        if not copies or self._is_plain(digest):
            return None
        tenant = copies[0].tenant
        if self.keys.is_shredded(tenant) or self.keys.public(tenant):
            raise Shredded(f"{digest} was shredded: the key of tenant {tenant} that it was sealed with was destroyed")
        raise Missing(f"{digest} is sealed, and the key of tenant {tenant} is not in {self.keys.folder}")

    def _unseal(self, digest: Digest, listed: Mapping[str, Digest], copy: _Sealed, folder: Path) -> None:
        root = f"{self._sealed_root(digest)}/{copy.tenant}/{copy.recipient}"
        _check_names(listed, copy.names, Path(root))
        for name in listed:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                with self.fs.open(f"{root}/{name}{_AGE}", "rb") as source, (folder / name).open("wb") as out:
                    self.keys.unseal(copy.tenant, source, digesting := DigestingWriter(out))
            except Tampered as error:
                raise Tampered(f"{root}/{name} was changed: {error}") from error
            except OSError as error:
                if error.errno == errno.ENOSPC or "No space" in str(error):
                    raise Unavailable(f"there is no room to open {digest} in {folder}: make it larger") from error
                raise
            if digesting.digest != listed[name]:
                raise Tampered(f"{root}/{name} was changed: its bytes do not match tree {digest}")

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


def _check_names(listed: Collection[str], found: Collection[str], folder: Path) -> None:
    for name in sorted({*listed, *found}):
        if name not in found:
            raise Missing(f"{folder / name} is missing")
        if name not in listed:
            raise Tampered(f"{folder / name} was added: it is not in the tree's list")


class _Renamed:
    """Write to a neighbour, fsync, rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")

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
