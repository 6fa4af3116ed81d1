"""One key a tenant, as a file that ``age -d -i FILE`` takes (X25519). What it sealed is lost when it is deleted.

A shredded tenant keeps an empty file as a mark: it gets no other key until it is restored.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from filelock import FileLock

from data_contracts.errors import Missing, Shredded, Tampered


class Target(Protocol):
    def write(self, data: bytes, /) -> Any: ...
    def flush(self) -> Any: ...


class TenantKeys:
    """Implements `pipelines.stages.protocols.TenantKeys`. Keys are ``folder``/TENANT.key, mode 0600."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def recipient(self, tenant: str) -> str:
        if (known := self.public(tenant)) is not None:
            return known  # who seals answers one after another waits for nobody
        with self._locked():
            if self.is_shredded(tenant):
                raise Shredded(f"tenant {tenant} was shredded: restore it from an archive first (assay tenant restore)")
            if not self._file(tenant).exists():
                self._make(tenant)
            return str(self._identity(tenant).to_public())

    def public(self, tenant: str) -> str | None:
        if self.is_shredded(tenant) or not self._file(tenant).exists():
            return None
        return str(self._identity(tenant).to_public())

    def is_shredded(self, tenant: str) -> bool:
        """Its key was destroyed, and there is no other one yet."""
        return self._mark(tenant).exists()

    def seal(self, tenant: str, source: BinaryIO, target: Target) -> None:
        import pyrage

        pyrage.encrypt_io(source, target, [pyrage.x25519.Recipient.from_str(self.recipient(tenant))])

    def unseal(self, tenant: str, source: BinaryIO, target: Target) -> None:
        """Raises `Tampered` for what its key did not seal as it is, `Missing` where there is no key."""
        import pyrage

        try:
            pyrage.decrypt_io(source, target, [self._identity(tenant)])
        except (pyrage.DecryptError, OSError) as error:
            if "[Errno" in str(error):  # of the target, such as a full disk; age's own errors have no number
                raise
            raise Tampered(f"it cannot be opened with the key of tenant {tenant}: {error}") from error

    def destroy(self, tenant: str) -> None:
        with self._locked():
            self._write(self._mark(tenant), "")
            self._erase(self._file(tenant))

    def renew(self, tenant: str) -> None:
        with self._locked():
            if self.is_shredded(tenant):
                self._erase(self._file(tenant))
                self._mark(tenant).unlink()
                _sync(self.folder)

    def _file(self, tenant: str) -> Path:
        return self.folder / f"{tenant}.key"

    def _mark(self, tenant: str) -> Path:
        return self.folder / f"{tenant}.shredded"

    def _identity(self, tenant: str) -> Any:
        import pyrage

        path = self._file(tenant)
        try:
            lines = path.read_text().splitlines()
            return pyrage.x25519.Identity.from_str(next(line for line in lines if not line.startswith("#")))
        except FileNotFoundError as error:
            raise Missing(f"{path}, the key of tenant {tenant}, is not there: put the vault back") from error
        except (StopIteration, ValueError, pyrage.IdentityError) as error:
            raise Tampered(f"{path} is not the key of tenant {tenant} any more: put the vault back") from error

    def _make(self, tenant: str) -> None:
        import pyrage

        made = pyrage.x25519.Identity.generate()
        self._write(self._file(tenant), f"# public key: {made.to_public()}\n{made}\n")

    def _write(self, path: Path, text: str) -> None:
        part = path.with_name(f".{path.name}.part")
        with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
        _sync(self.folder)

    def _erase(self, path: Path) -> None:
        """Overwrite, then delete: a file system that writes in place keeps no copy."""
        if path.exists():
            with path.open("r+b") as handle:
                handle.write(secrets.token_bytes(path.stat().st_size))
                handle.flush()
                os.fsync(handle.fileno())
            path.unlink()
            _sync(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock", mode=0o600):
            yield


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
