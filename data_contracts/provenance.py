"""Where a release came from, in the field's own formats: an in-toto statement with SLSA's provenance predicate, and the
signature over every file."""

from typing import Literal

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:assay:line:v1"
"""What `externalParameters` and `resolvedDependencies` mean: docs/lifecycle.md."""


class Attestation(Frozen):
    """The files of a release as registered, and who vouches for them. ``files``: path in the release -> digest of its
    bytes, without the statement ``provenance`` (JSON) and the ``signature`` (a Sigstore bundle, as OpenSSF
    model-signing writes it) over all of these. ``public_key`` (PEM) checks it.

    The audit record of the registration names it, so that the log's key vouches for the public key.
    """

    kind: Literal["attestation"] = "attestation"
    release: Digest
    files: dict[str, Digest]
    provenance: Digest
    signature: Digest
    public_key: str
