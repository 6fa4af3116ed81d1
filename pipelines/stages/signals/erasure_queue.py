"""Requests to erase that wait: one file each, with pseudonym and reason. The sensor has them worked off."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from data_contracts.errors import AssayError
from data_contracts.frozen import Frozen
from data_contracts.verdicts import ErasureReceipt
from pipelines.recipes.product import Product
from pipelines.stages import inbox
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.erasure import PastRuns, check_request, erase, unfinished

log = logging.getLogger(__name__)


class ErasureRequest(Frozen):
    subject: str = Field(pattern=r"^[0-9a-f]{32}$")
    reason: str = Field(min_length=1)


def submit(parts: Parts, subject: str, reason: str) -> Path:
    """Lay a request into the queue. Raises `Missing` for a subject that nothing is known of."""
    check_request(parts, subject, reason)
    return inbox.submit(_queue(parts), ErasureRequest(subject=subject, reason=reason))


def waiting(parts: Parts) -> list[ErasureRequest]:
    """What there is to do: erasures that were begun and have no receipt, then the queue."""
    begun = unfinished(parts.log.records())
    resumed = [ErasureRequest(subject=str(r.body["subject"]), reason=str(r.body["reason"])) for r in begun]
    return [*resumed, *_queued(parts).values()]


def work_off(parts: Parts, products: Sequence[Product], past_runs: PastRuns) -> list[ErasureReceipt]:
    """Finish what was begun, then empty the queue. One that fails does not hold up the others: the first error is
    raised at the end, and the request stays."""
    receipts: dict[str, ErasureReceipt] = {}
    failures: list[AssayError] = []
    for request in waiting(parts):
        try:
            receipts[request.subject] = erase(parts, products, request.subject, request.reason, past_runs)[0]
        except AssayError as error:
            log.error("the erasure of %s is not finished: %s", request.subject, error)
            failures.append(error)
    for path, request in _queued(parts).items():
        if request.subject in receipts:
            path.unlink()
    if failures:
        raise failures[0]
    return list(receipts.values())


def _queued(parts: Parts) -> dict[Path, ErasureRequest]:
    """By age. A file that is no request is set aside, beside the queue."""
    found: dict[Path, ErasureRequest] = {}
    for path in inbox.waiting(_queue(parts)):
        try:
            found[path] = ErasureRequest.model_validate_json(path.read_bytes())
        except ValidationError:
            path.replace(path.with_suffix(".refused"))
            log.error("%s is no request to erase: use `assay erase --queue`; set aside as .refused", path.name)
    return found


def _queue(parts: Parts) -> Path:
    return parts.home / "erasure" / "queue"
