"""Names of things: canonical JSON (RFC 8785), SHA-256, tree digests, Merkle roots. The only place that hashes.

A digest is written ``sha256:<64 lowercase hex>``. Equal content has equal digest on every machine.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import rfc8785
from pydantic import StringConstraints
from typing_extensions import Buffer

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]

_CHUNK = 1 << 20
_LINES = 1_000
_DIGEST = re.compile(DIGEST_PATTERN)
_SAFE = 2**53 - 1


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value. Raises ``ValueError`` for NaN, infinities and integers beyond 2**53.

    Rows are text in objects with ASCII keys, for which Python's encoder, in C, writes the same bytes ten times as fast.
    """
    try:
        return _encode(value).encode() if _is_plain(value) else rfc8785.dumps(value)
    except (UnicodeEncodeError, RecursionError):
        return rfc8785.dumps(value)  # the slower encoder says what that means


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False).encode


def _is_plain(value: Any) -> bool:
    """Whether both encoders agree: no float, no key whose order depends on its encoding. A list may be a tuple."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str or not key.isascii():
                return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return kind is str or kind is bool or value is None or (kind is int and -_SAFE <= value <= _SAFE)
    for each in value:  # noqa: SIM110 - all() takes twice as long, and this is run for every row
        if type(each) is not str and not _is_plain(each):
            return False
    return True


def sha256_bytes(data: bytes) -> Digest:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> Digest:
    """Digest of a JSON value by its canonical bytes."""
    return sha256_bytes(canonical_json(value))


def sha256_file(path: Path) -> Digest:
    hasher = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            hasher.update(chunk)
    return "sha256:" + hasher.hexdigest()


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def hex_of(digest: Digest) -> str:
    """The 64 hex digits, for file names and served adapter names."""
    if not is_digest(digest):
        raise ValueError(f"not a digest: {digest!r} (expected sha256:<64 hex>)")
    return digest.removeprefix("sha256:")


def tree_files(root: Path) -> dict[str, Digest]:
    """Relative POSIX path -> digest of every file below ``root``, sorted. Links are refused."""
    files: dict[str, Digest] = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link: a tree holds plain files only")
        if path.is_file():
            files[path.relative_to(root).as_posix()] = sha256_file(path)
    return files


def tree_digest(files: Mapping[str, Digest]) -> Digest:
    """Digest of a folder, from the result of `tree_files`: names and bytes, not times or modes."""
    if not files:
        raise ValueError("an empty tree has no digest")
    return sha256_json(dict(files))


def row_name(subject_key: bytes, text: str) -> Digest:
    """Name of a row: HMAC-SHA-256 of its canonical JSON under its subject's key (32 bytes).

    Without the key the name tells nothing of the row, so that deleting row and key leaves the chain whole and the
    content gone.
    """
    if len(subject_key) != 32:
        raise ValueError(f"a subject key has 32 bytes, not {len(subject_key)}")
    return "sha256:" + hmac.digest(subject_key, text.encode(), "sha256").hex()


def keyed_ref(key: bytes, text: str) -> str:
    """A subject's pseudonym: 32 hex digits of HMAC-SHA-256 under the installation's key."""
    return hmac.digest(key, text.encode(), "sha256").hex()[:32]


class LinesDigest:
    """SHA-256 of lines that come one by one; no line may hold a line break."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()

    def add(self, lines: Iterable[str]) -> None:
        left = iter(lines)
        while some := list(islice(left, _LINES)):
            self._hasher.update("\n".join([*some, ""]).encode())

    def add_bytes(self, lines: Buffer) -> None:
        """Whole lines in UTF-8, each with its line break."""
        self._hasher.update(lines)

    @property
    def digest(self) -> Digest:
        return "sha256:" + self._hasher.hexdigest()


class DigestingWriter:
    """A handle that writes through, and digests what it was asked to write, whatever becomes of it there."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._hasher = hashlib.sha256()

    def write(self, data: Any) -> int:
        self._hasher.update(data)
        self._handle.write(data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._handle.flush()

    @property
    def digest(self) -> Digest:
        return "sha256:" + self._hasher.hexdigest()


def merkle_root(names: Iterable[Digest]) -> Digest:
    """Root over the sorted names, hashed as in RFC 6962 (leaf prefix 0x00, node prefix 0x01).

    Sorting makes it independent of row order, batching and engine; a repeated name counts twice.
    """
    sha256 = hashlib.sha256
    level = [sha256(b"\x00" + raw(name)).digest() for name in sorted(names)]
    if not level:
        return sha256_bytes(b"")
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [sha256(b"\x01" + left + right).digest() for left, right in pairs] + level[len(level) // 2 * 2 :]
    return "sha256:" + level[0].hex()


def raw(name: Digest) -> bytes:
    """The 32 bytes of a digest, four times as fast as by `hex_of`. Raises ``ValueError`` for what is none."""
    try:
        found = bytes.fromhex(name[7:])
    except ValueError:
        found = b""
    if len(found) != 32 or len(name) != 71:
        raise ValueError(f"not a digest: {name!r} (expected sha256:<64 hex>)")
    return found
