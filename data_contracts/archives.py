"""What an archive of a tenant holds: its first document, which names all others."""

from typing import Literal

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen
from data_contracts.manifests import SignedHead


class TenantArchive(Frozen):
    """``releases``: each with the trees of weights it was made through. ``trees``: tree -> digest of each file;
    ``documents`` are blobs. ``left_out`` are revoked releases, of which only the documents are there. The log was at
    ``log_head`` then."""

    kind: Literal["archive"] = "archive"
    tenant: str
    releases: dict[Digest, tuple[Digest, ...]]
    left_out: tuple[Digest, ...]
    documents: tuple[Digest, ...]
    trees: dict[Digest, dict[str, Digest]]
    log_head: SignedHead
