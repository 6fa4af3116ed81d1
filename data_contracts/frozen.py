"""The base of every record that has an identity: frozen, closed to unknown fields, named by its digest."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from data_contracts.digests import Digest, sha256_json


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def payload(self) -> dict[str, Any]:
        """The JSON value that the digest covers."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> Digest:
        return sha256_json(self.payload())
