"""API keys: a key names a tenant, a tenant sees its own products. Only hashes of keys are kept."""

import hmac
import json
import os
import secrets
from pathlib import Path

from filelock import FileLock

from data_contracts.digests import sha256_bytes


def create_key(home: Path, tenant: str) -> str:
    """A new API key for a tenant; it cannot be shown again."""
    key = f"assay-{secrets.token_urlsafe(32)}"
    path = _tenants_file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = _tenants(home) | {sha256_bytes(key.encode()): tenant}
        _write_private(path, json.dumps(known, indent=1, sort_keys=True))
    return key


def void_keys(home: Path, tenant: str) -> int:
    """Take away all API keys of a tenant; how many there were. A gateway that runs knows at its next request."""
    path = _tenants_file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        known = _tenants(home)
        kept = {key: each for key, each in known.items() if each != tenant}
        if kept != known:
            _write_private(path, json.dumps(kept, indent=1, sort_keys=True))
    return len(known) - len(kept)


def operator_key(home: Path) -> str:
    """The key of this installation's own programs: it may ask for a challenger. Made when there is none."""
    path = home / "keys" / "operator_key"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _write_private(path, f"assay-operator-{secrets.token_urlsafe(32)}")
    return path.read_text()


class Callers:
    """Who a key belongs to; the file is read again when it changed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.operator = operator_key(home)
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, str] = {}

    def is_operator(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(), self.operator.encode())

    def tenant(self, key: str) -> str | None:
        path = _tenants_file(self.home)
        if path.exists():
            stat = path.stat()
            if (stamp := (stat.st_mtime_ns, stat.st_ino)) != self._stamp:
                self._known, self._stamp = _tenants(self.home), stamp
        return self._known.get(sha256_bytes(key.encode()))


def _tenants_file(home: Path) -> Path:
    return home / "tenants.json"


def _tenants(home: Path) -> dict[str, str]:
    path = _tenants_file(home)
    known: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    return known


def _write_private(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
