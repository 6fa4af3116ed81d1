"""Who is answered by a challenger that has a share of the traffic: the same people all the time, drawn by a keyed hash
that neither they nor their question can move."""

import hashlib
import hmac
import uuid

from data_contracts.digests import Digest

_BITS = 52
"""Of the hash that are drawn by: as many as a float holds."""


def cohort(key: str, challenger: Digest, tenant: str, user: object) -> str:
    """A name for whoever asks, other for each challenger. ``user`` is what the client calls them; who is not named is
    somebody new each time."""
    who = user if isinstance(user, str) and user else uuid.uuid4().hex
    return hmac.new(key.encode(), f"{challenger}\n{tenant}\n{who}".encode(), hashlib.sha256).hexdigest()[:32]


def is_challenged(cohort: str, share: float) -> bool:
    """Whether the challenger answers: for this share of all cohorts. Who is within a share is within a larger one."""
    return int(cohort[: _BITS // 4], 16) < share * (1 << _BITS)
