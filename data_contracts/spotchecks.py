"""What a person says of single answers of a candidate, and what a product demands of that."""

from typing import Literal

from pydantic import Field

from data_contracts.digests import Digest
from data_contracts.frozen import Frozen

Rating = Literal["good", "bad"]


class SpotCheckRule(Frozen):
    """``signers`` people, each with a key of their own, rate the ``at_least`` items that the line picks, and each finds
    at least the share ``agree`` of the answers good."""

    at_least: int = Field(ge=1, le=500)
    signers: int = Field(default=1, ge=1)
    agree: float = Field(gt=0, le=1)


class SpotCheckStatement(Frozen):
    """What a reviewer signs: ratings by ``suite/item`` of this release. No text of questions or answers."""

    product: str
    release: Digest
    verdict: Digest
    ratings: dict[str, Rating] = Field(min_length=1)
    nonce: str = Field(pattern=r"^[0-9a-f]{32}$")


class SpotCheck(Frozen):
    """A statement with the SSH signature over its canonical bytes (namespace ``assay-spotcheck-v1``)."""

    kind: Literal["spot-check"] = "spot-check"
    statement: SpotCheckStatement
    principal: str
    signature: str
