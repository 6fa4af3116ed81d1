"""What clients wrote, before it is scrubbed: it leaves the gateway's memory only sealed with the tenant's key."""

from base64 import b64decode, b64encode
from datetime import datetime
from io import BytesIO
from typing import Literal, TypeVar

from data_contracts.digests import Digest
from data_contracts.feedback import Sealed
from data_contracts.frozen import Frozen
from data_contracts.records import Message, ToolSpec
from pipelines.stages.protocols import TenantKeys


class RawExchange(Frozen):
    """As `Exchange`, in the client's and the model's own words. ``user`` is what the request named."""

    trace_id: str
    release: Digest | None
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    answer: str
    user: str | None


class RawFeedback(Frozen):
    """As `Feedback`, in the sender's own words. ``user`` is what the sender named."""

    trace_id: str
    by: Literal["user", "reviewer"]
    rating: Literal["good", "bad"] | None
    correction: str | None
    label: str | None
    user: str | None


Raw = TypeVar("Raw", RawExchange, RawFeedback)


def sealed(
    keys: TenantKeys, raw: RawExchange | RawFeedback, name: str, time: datetime, tenant: str, product: str
) -> Sealed:
    """Raises `Shredded`."""
    closed = BytesIO()
    keys.seal(tenant, BytesIO(raw.model_dump_json().encode()), closed)
    kind: Literal["exchange", "feedback"] = "exchange" if isinstance(raw, RawExchange) else "feedback"
    data = b64encode(closed.getvalue()).decode()
    return Sealed(name=name, time=time, tenant=tenant, product=product, kind=kind, data=data)


def opened(keys: TenantKeys, sealed: Sealed, kind: type[Raw]) -> Raw:
    """Raises `Tampered` for what the tenant's key does not open, `Missing` where the key is not there."""
    text = BytesIO()
    keys.unseal(sealed.tenant, BytesIO(b64decode(sealed.data)), text)
    return kind.model_validate_json(text.getvalue())
