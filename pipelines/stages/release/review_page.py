"""The review page: what waits for a signature, and each dossier as it was registered. It shows and changes nothing: to
sign is a command in the reviewer's own shell, with the reviewer's own key.

It listens on this machine only and asks for no password, so a request must name this machine as its host: a page of
another name that was made to lead here (DNS rebinding) is refused.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from data_contracts.digests import is_digest
from data_contracts.errors import AssayError, Refused
from evals.templates import page
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.files import kept_page
from pipelines.stages.release.review import review

HOSTS = ("127.0.0.1", "localhost")
ALONE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": ALONE,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every answer; a page widens the policy by what it holds itself."""
DOSSIER = f"{ALONE}; style-src 'unsafe-inline'; img-src data:; sandbox"
"""A dossier is drawn without scripts; its drawings carry their styles."""


def _now() -> datetime:
    return datetime.now(UTC)


def make_review_page(
    parts: Parts, products: Callable[[], Sequence[Product]], now: Callable[[], datetime] = _now
) -> FastAPI:
    """The application. ``products`` lists the product files of now."""

    def index() -> Response:
        found = review(parts, products(), now())
        return _html("review.html.jinja", reviews=found, now=now())

    def dossier(release: str) -> Response:
        if not is_digest(release):
            raise Refused(f"{release!r} is no release id: give all of it, sha256: and 64 hex digits")
        return HTMLResponse(kept_page(parts, release), headers={"content-security-policy": DOSSIER})

    def health() -> Response:
        return JSONResponse({"healthy": True})

    app = FastAPI(title="Assay review", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_route("/", index, methods=["GET"], response_model=None)
    app.add_api_route("/dossier/{release}", dossier, methods=["GET"], response_model=None)
    app.add_api_route("/healthz", health, methods=["GET"], response_model=None)
    app.add_exception_handler(AssayError, _failed)
    app.add_exception_handler(HTTPException, _failed)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guarded)
    return app


async def _guarded(request: Request, answer: RequestResponseEndpoint) -> Response:
    response = await answer(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _html(template: str, status: int = 200, **facts: object) -> Response:
    """A page that runs its own script and style and loads nothing."""
    nonce = secrets.token_urlsafe(16)
    policy = f"{ALONE}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
    html = page(template, nonce=nonce, **facts)
    return HTMLResponse(html, status_code=status, headers={"content-security-policy": policy})


async def _failed(request: Request, error: Exception) -> Response:
    """What was asked for is not there, or is not what it should be: the page names it."""
    if isinstance(error, HTTPException):
        status = error.status_code
        why = f"{request.method} {request.url.path}: {error.detail}"
    else:
        status = 404 if isinstance(error, Refused) else 500
        why = str(error)
    response = _html("review-error.html.jinja", status, title=HTTPStatus(status).phrase, why=why)
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response
