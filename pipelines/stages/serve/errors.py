"""What a client is told when there is no answer, in the form of OpenAI's errors."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from data_contracts.errors import AssayError, BadInput, Missing, Shredded, Tampered, Unavailable
from pipelines.stages.serve.answer import Target
from pipelines.stages.serve.schema import ErrorKind

RETRY_AFTER = "5"
LIMIT = "x-assay-limit"
"""Header of a refusal: which limit, by its name in ``limits.yaml``."""

log = logging.getLogger(__name__)


class Denied(Exception):
    """A request that ends before anybody answers."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class ServerFailed(Unavailable):
    """vLLM took the request and failed it."""


def over_limit(limit: str, code: str, why: str, seconds: int = 0) -> Denied:
    """A refusal for now; ``seconds`` until it is worth asking again, 0 where nobody knows."""
    headers = {LIMIT: limit, "retry-after": str(seconds or RETRY_AFTER)}
    return Denied(429, code, f"over the limit {limit}: {why}; ask again in {headers['retry-after']} s", headers)


def shredded(product: str) -> Denied:
    why = f"the model of {product} was shredded with its tenant, and nobody answers in its place"
    return Denied(410, "tenant_shredded", why)


def failure(error: Exception) -> Denied:
    """An error as a client may see it; paths and digests of a damaged store stay in the log."""
    if isinstance(error, Denied):
        return error
    if isinstance(error, Shredded):  # while the request was under way
        return shredded("this product")
    if isinstance(error, BadInput):
        return Denied(400, "invalid_request", str(error))
    if isinstance(error, HTTPException):  # the framework's own: no such path, another method
        phrase = HTTPStatus(error.status_code).phrase
        code, text = phrase.lower().replace(" ", "_"), f"{phrase}: /openapi.json lists what can be asked"
        return Denied(error.status_code, code, text, dict(error.headers or {}))
    if not isinstance(error, AssayError):
        return Denied(500, "internal_error", "the gateway failed: the operator finds the reason in its log")
    log.error("a request failed: %s", error)
    headers = {"retry-after": RETRY_AFTER} if isinstance(error, Unavailable) else None
    if isinstance(error, ServerFailed):
        return Denied(502, "model_server_failed", f"{error}: ask again", headers)
    return Denied(503, "unavailable", shown(error), headers)


def shown(error: AssayError) -> str:
    """What is said of it; paths and digests of a damaged store stay in the log."""
    if isinstance(error, Tampered | Missing):
        return "the live release does not match what was approved: it is not served until an operator has looked"
    return str(error)


def error_response(status: int, code: str, text: str, headers: dict[str, str]) -> Response:
    kinds: dict[int, ErrorKind] = {401: "authentication_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return JSONResponse(error_body(kind, code, text), status_code=status, headers=headers)


def error_body(kind: ErrorKind, code: str, text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


def refusal_of(response: httpx.Response) -> str:
    """vLLM's own reason."""
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the model server refused the request"


def truncation(goal: Target, asked: Mapping[str, Any]) -> str:
    """Half a JSON would be parsed, or worse, acted upon."""
    return (
        f"the answer did not end within max_tokens ({asked['max_tokens']}), and half of it is no JSON: ask for less, "
        f"or raise max_tokens (at most {goal.max_tokens} for this product)"
    )
