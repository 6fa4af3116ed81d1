"""What a deprecated release's answers say of it, and the refusal once its sunset has come."""

import base64
from datetime import datetime
from email.utils import format_datetime

from data_contracts.digests import Digest, hex_of
from data_contracts.lifecycle import Standing


def notice(standing: Standing | None) -> dict[str, str]:
    """Response headers: `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and, where a successor is named, a `Link` to it
    (RFC 5829) by a name made of its digest (RFC 6920). Empty for a release that is not deprecated."""
    if standing is None or standing.deprecated is None or standing.sunset is None:
        return {}
    headers = {
        "deprecation": f"@{int(standing.deprecated.timestamp())}",
        "sunset": format_datetime(standing.sunset, usegmt=True),
    }
    if standing.successor is not None:
        name = base64.urlsafe_b64encode(bytes.fromhex(hex_of(standing.successor))).decode().rstrip("=")
        headers["link"] = f'<ni:///sha-256;{name}>; rel="successor-version"; title="{standing.successor}"'
    return headers


def ended(product: str, release: Digest, standing: Standing | None, now: datetime) -> str:
    """Why this release does not answer any more; empty while it does."""
    if standing is None or standing.sunset is None or now < standing.sunset:
        return ""
    then = f"its successor {standing.successor}" if standing.successor else "another release"
    return (
        f"release {release} of {product} was deprecated ({standing.reason}) and answered until "
        f"{standing.sunset.isoformat()}: {then} has to be promoted before {product} answers again"
    )
