"""The hash-chained audit log: ``log.jsonl`` holds one record a line, ``head.json`` the newest with its signature.

A record is signed and written to ``head.json`` before its line is appended: a crash in between loses nothing, a line
that was appended or cut by another hand does not fit the signed head and stops the log.
"""

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_contracts.chain import (
    GENESIS,
    LOG_NAMESPACE,
    AuditRecord,
    ChainBroken,
    EventKind,
    check_chain,
    follows,
    rotation_message,
)
from data_contracts.digests import canonical_json
from data_contracts.errors import Refused
from data_contracts.frozen import Frozen
from data_contracts.manifests import SignedHead
from resources.locks import FileLocks
from resources.ssh_signatures import create_key, made_by, public_key, sign, signer_line

_PRINCIPAL = "assay-log"
_READS = 20


class _Head(Frozen):
    """The newest record, with the log key's signature of its digest."""

    record: AuditRecord
    signature: str


def _now() -> datetime:
    return datetime.now(UTC)


class FileAuditLog:
    """Records are of the time that ``now`` says."""

    def __init__(self, folder: Path, log_key: Path, now: Callable[[], datetime] = _now) -> None:
        self.path = folder / "log.jsonl"
        self.head_path = folder / "head.json"
        self.locks = FileLocks(folder)
        self.log_key = log_key
        self.now = now
        self.next_key = log_key.with_name(log_key.name + ".next")

    def signer_line(self) -> str:
        """The trust root's line for this log: its first key, which is made when there is no log yet."""
        with self.locks.hold("log"):
            self._tip()
            rotations = (record for record in self.records() if record.event == "log-key.rotated")
            first = next((str(record.body["replaces"]) for record in rotations), None)
            return signer_line(_PRINCIPAL, LOG_NAMESPACE, first or public_key(self.log_key))

    def append(self, event: EventKind, product: str, body: Mapping[str, JsonValue], actor: str) -> AuditRecord:
        """Chain one event: sign, keep as head, append. Raises `ChainBroken` when the end is not as it was left."""
        with self.locks.hold("log"):
            tip = self._tip()
            record = _next(tip, self.now(), event, product, body, actor)
            self._write(record, self.log_key)
            return record

    def rotate(self, actor: str) -> AuditRecord:
        """Hand over to a new log key: the old one signs it into the chain, the new one signs from there on."""
        with self.locks.hold("log"):
            tip = self._tip()
            create_key(self.next_key, _PRINCIPAL)
            public = public_key(self.next_key)
            handover = sign(self.log_key, LOG_NAMESPACE, rotation_message(public, tip.digest if tip else GENESIS))
            body = {"public_key": public, "replaces": public_key(self.log_key), "signature": handover}
            record = _next(tip, self.now(), "log-key.rotated", "*", body, actor)
            self._write(record, self.next_key)
            self.next_key.replace(self.log_key)
            return record

    def records(self) -> list[AuditRecord]:
        """The whole log, checked: every record follows, and the last is the signed head's."""
        for _ in range(_READS):
            head = self._head()
            records = [_parsed(line, number) for number, line in enumerate(self._lines())]
            if head is None and not records:
                return []
            if head is not None and head.record.sequence == len(records):
                records.append(head.record)  # its line is being written, or was lost in a crash
            if head is not None and head.record.sequence >= len(records):
                raise ChainBroken(f"audit log: cut after record {len(records) - 1}; its head is {head.record.sequence}")
            if head is not None and records[-1] == head.record:
                check_chain(records)
                return records
            # Another process appended between the two reads: read again.
        raise ChainBroken(f"audit log: its last record ({len(records) - 1}) is not the one that was signed as head")

    def stamp(self) -> tuple[int, int]:
        """When the head was last replaced, and its inode; zeros for an empty log."""
        try:
            stat = self.head_path.stat()
        except FileNotFoundError:
            return 0, 0
        return stat.st_mtime_ns, stat.st_ino

    def signed_head(self) -> SignedHead:
        """The newest head as it was signed when its record was chained."""
        head = self._head()
        if head is not None:
            return SignedHead(sequence=head.record.sequence, head=head.record.digest, signature=head.signature)
        with self.locks.hold("log"):
            self._tip()
            return SignedHead(sequence=-1, head=GENESIS, signature=sign(self.log_key, LOG_NAMESPACE, GENESIS.encode()))

    def _tip(self) -> AuditRecord | None:
        """The last record, with what a crash left undone finished. Looks at the end only; `records` checks it all."""
        self._cut_torn_line()
        lines = _last_lines(self.path, 2)
        last = [_parsed(line, number) for number, line in enumerate(lines, start=-len(lines))]
        tip = last[-1] if last else None
        head = self._head()
        if head is None:
            if tip is not None:
                raise ChainBroken(f"audit log: {self.head_path}, its signed head, is missing")
            if not self.log_key.exists():
                create_key(self.log_key, _PRINCIPAL)
            return None
        self._settle_rotation(head.record)
        if not self.log_key.exists():
            raise Refused(f"no log key at {self.log_key}: restore it; a log goes on with its own key or a rotated one")
        if not made_by(public_key(self.log_key), LOG_NAMESPACE, head.record.digest.encode(), head.signature):
            raise ChainBroken(f"audit log: the head {head.record.sequence} is not signed by the log key")
        if tip != head.record:
            if not follows(head.record, tip):
                raise ChainBroken(f"audit log: its last line is not the signed head {head.record.sequence}")
            self._append_line(head.record)
        elif len(last) == 2 and not follows(last[1], last[0]):
            raise ChainBroken(f"audit log: record {tip.sequence} does not follow record {last[0].sequence}")
        return head.record

    def _settle_rotation(self, newest: AuditRecord) -> None:
        """A crash in `rotate`: the next key takes over when it was chained, and goes when it was not."""
        if self.next_key.exists():
            if newest.event == "log-key.rotated" and newest.body["public_key"] == public_key(self.next_key):
                self.next_key.replace(self.log_key)
            else:
                self.next_key.unlink()

    def _write(self, record: AuditRecord, key: Path) -> None:
        head = _Head(record=record, signature=sign(key, LOG_NAMESPACE, record.digest.encode()))
        part = self.head_path.with_suffix(".part")
        with part.open("wb") as handle:
            handle.write(canonical_json(head.payload()))
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(self.head_path)
        self._append_line(record)

    def _append_line(self, record: AuditRecord) -> None:
        with self.path.open("ab") as handle:
            handle.write(canonical_json(record.payload()) + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        _sync_folder(self.path.parent)

    def _head(self) -> _Head | None:
        try:
            return _Head.model_validate_json(self.head_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ChainBroken(f"audit log: {self.head_path} cannot be read: {error}") from error

    def _lines(self) -> list[bytes]:
        """Whole lines; a torn last one is not part of the log."""
        return self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("r+b") as handle:
            size = handle.seek(0, os.SEEK_END)
            whole = _after_last_newline(handle, size)
            if whole != size:
                handle.truncate(whole)
                os.fsync(handle.fileno())


def _next(
    tip: AuditRecord | None, time: datetime, event: EventKind, product: str, body: Mapping[str, JsonValue], actor: str
) -> AuditRecord:
    return AuditRecord(
        sequence=tip.sequence + 1 if tip else 0,
        previous=tip.digest if tip else GENESIS,
        time=time,
        actor=actor,
        event=event,
        product=product,
        body=dict(body),
    )


def _parsed(line: bytes, number: int) -> AuditRecord:
    """A record from its line (``number`` below 0 counts from the end); only its canonical bytes will do."""
    try:
        record = AuditRecord.model_validate(json.loads(line))
    except ValueError as error:
        raise ChainBroken(f"audit log: record {number} cannot be read: {error}") from error
    if canonical_json(record.payload()) != line:
        raise ChainBroken(f"audit log: record {number} is not written as it was (canonical JSON)")
    return record


def _last_lines(path: Path, count: int) -> list[bytes]:
    if not path.exists():
        return []
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        span = 1 << 14
        while True:
            start = max(0, size - span)
            handle.seek(start)
            lines = handle.read().split(b"\n")[:-1]
            if start == 0 or len(lines) > count:
                return lines[-count:]
            span *= 2


def _after_last_newline(handle: Any, size: int) -> int:
    """Offset behind the last newline before ``size``."""
    span = 1 << 14
    while True:
        start = max(0, size - span)
        handle.seek(start)
        found = int(handle.read(size - start).rfind(b"\n"))
        if found >= 0 or start == 0:
            return start + found + 1
        span *= 2


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
