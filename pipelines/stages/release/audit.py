"""Is the audit log whole, and are its heads signed by a key that was allowed to at that point?

The trust root holds the log's first key. Each later key was handed over by the one before it, in the log itself.
"""

from collections.abc import Sequence

from data_contracts.chain import LOG_NAMESPACE, AuditRecord, ChainBroken, head_at, rotation_message
from data_contracts.manifests import SignedHead
from pipelines.stages.protocols import AuditLog, Signatures

LogKeys = Sequence[tuple[int, str]]
"""(sequence from which it signs, public key) of each rotated key, oldest first; before the first, the trust root's."""


def check_log(log: AuditLog, signatures: Signatures) -> list[AuditRecord]:
    """All records of an intact log whose newest head is signed by an allowed key. Raises `ChainBroken`."""
    records = log.records()
    if not records:
        raise ChainBroken("audit log: it is empty or gone")
    newest = log.signed_head()
    if newest.sequence >= len(records):  # appended in between
        records = log.records()
    check_head(records, log_keys(records, signatures), newest, signatures)
    return records


def log_keys(records: Sequence[AuditRecord], signatures: Signatures) -> LogKeys:
    """The keys that were rotated in, each handed over by the one before. Raises `ChainBroken` naming the rotation."""
    keys: list[tuple[int, str]] = []
    for record in records:
        if record.event != "log-key.rotated":
            continue
        public = str(record.body["public_key"])
        if not _signed(keys, rotation_message(public, record.previous), str(record.body["signature"]), signatures):
            raise ChainBroken(f"audit log: the key rotation {record.sequence} is not signed by the key before it")
        keys.append((record.sequence, public))
    return keys


def check_head(records: Sequence[AuditRecord], keys: LogKeys, head: SignedHead, signatures: Signatures) -> None:
    """Raises `ChainBroken` unless the head is one that this log had, signed by the key of that time."""
    if head_at(records, head.sequence) != head.head:
        raise ChainBroken(f"audit log: the signed head {head.sequence} ({head.head}) is not in it: cut or rewritten")
    past = [key for key in keys if key[0] <= head.sequence]
    future = [key for key in keys if key[0] > head.sequence]
    message = head.head.encode()
    if any(signatures.made_by(public, LOG_NAMESPACE, message, head.signature) for _, public in future) or not _signed(
        past, message, head.signature, signatures
    ):
        raise ChainBroken(f"audit log: the head {head.sequence} is not signed by the log key of that time")


def _signed(keys: LogKeys, message: bytes, signature: str, signatures: Signatures) -> bool:
    """Whether the newest of these keys made this signature; with none, whether one of the trust root did."""
    if keys:
        return signatures.made_by(keys[-1][1], LOG_NAMESPACE, message, signature)
    return bool(signatures.principals(LOG_NAMESPACE, message, signature))
