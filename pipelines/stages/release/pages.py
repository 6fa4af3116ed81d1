"""What all pages of the review server share: they show and change nothing, load nothing, and name what went wrong.

It listens on this machine only and asks for no password, so a request must name this machine as its host: a page of
another name that was made to lead here (DNS rebinding) is refused.
"""

import secrets
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from data_contracts.errors import AssayError, Refused
from evals.templates import page

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


def make_site(title: str) -> FastAPI:
    """An application without pages yet."""
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_exception_handler(AssayError, _failed)
    app.add_exception_handler(HTTPException, _failed)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_guarded)
    return app


def html_page(template: str, status: int = 200, **facts: object) -> Response:
    """A page that runs its own script and style and loads nothing."""
    nonce = secrets.token_urlsafe(16)
    policy = f"{ALONE}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
    html = page(template, nonce=nonce, **facts)
    return HTMLResponse(html, status_code=status, headers={"content-security-policy": policy})


async def _guarded(request: Request, answer: RequestResponseEndpoint) -> Response:
    response = await answer(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _failed(request: Request, error: Exception) -> Response:
    """What was asked for is not there, or is not what it should be: the page names it."""
    if isinstance(error, HTTPException):
        status = error.status_code
        why = f"{request.method} {request.url.path}: {error.detail}"
    else:
        status = 404 if isinstance(error, Refused) else 500
        why = str(error)
    response = html_page("review-error.html.jinja", status, title=HTTPStatus(status).phrase, why=why)
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})
    return response
