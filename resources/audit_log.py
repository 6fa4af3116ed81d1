"""The hash-chained audit log as a JSON-lines file: one record a line, appended under a lock and fsynced."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from data_contracts.chain import (
    GENESIS,
    LOG_NAMESPACE,
    AuditRecord,
    ChainBroken,
    EventKind,
    check_chain,
)
from data_contracts.digests import canonical_json
from data_contracts.manifests import SignedHead
from resources.locks import FileLocks
from resources.ssh_signatures import sign


class FileAuditLog:
    def __init__(self, folder: Path, log_key: Path) -> None:
        self.path = folder / "log.jsonl"
        self.locks = FileLocks(folder)
        self.log_key = log_key

    def append(self, event: EventKind, product: str, body: Mapping[str, JsonValue], actor: str) -> AuditRecord:
        """Chain one event. A half-written last line (power loss) is cut off first; a broken chain is refused."""
        with self.locks.hold("log"):
            self._drop_torn_tail()
            records = self.records()
            record = AuditRecord(
                sequence=len(records),
                previous=check_chain(records) if records else GENESIS,
                time=datetime.now(UTC),
                actor=actor,
                event=event,
                product=product,
                body=dict(body),
            )
            with self.path.open("ab") as handle:
                handle.write(canonical_json(record.payload()) + b"\n")
                handle.flush()
                os.fsync(handle.fileno())
            return record

    def records(self) -> list[AuditRecord]:
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        records: list[AuditRecord] = []
        for number, line in enumerate(lines[:-1]):
            try:
                records.append(AuditRecord.model_validate(json.loads(line)))
            except ValueError as error:
                raise ChainBroken(f"audit log: record {number} cannot be read: {error}") from error
        return records

    def signed_head(self) -> SignedHead:
        records = self.records()
        head = check_chain(records)
        return SignedHead(
            sequence=len(records) - 1, head=head, signature=sign(self.log_key, LOG_NAMESPACE, head.encode())
        )

    def _drop_torn_tail(self) -> None:
        if self.path.exists() and not (data := self.path.read_bytes()).endswith(b"\n") and data:
            with self.path.open("r+b") as handle:
                handle.truncate(data.rfind(b"\n") + 1)
                os.fsync(handle.fileno())
