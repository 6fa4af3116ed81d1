"""The review page: what waits for a signature, and each dossier as it was registered. It shows and changes nothing: to
sign is a command in the reviewer's own shell, with the reviewer's own key.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response

from data_contracts.digests import is_digest
from data_contracts.errors import Refused
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.files import kept_page
from pipelines.stages.release.pages import ALONE, html_page, make_site
from pipelines.stages.release.review import review

DOSSIER = f"{ALONE}; style-src 'unsafe-inline'; img-src data:; sandbox"
"""A dossier is drawn without scripts; its drawings carry their styles."""


def _now() -> datetime:
    return datetime.now(UTC)


def make_review_page(
    parts: Parts, products: Callable[[], Sequence[Product]], now: Callable[[], datetime] = _now
) -> FastAPI:
    """The application. ``products`` lists the product files of now."""

    def index() -> Response:
        files = products()
        names = {product.name for product in files}
        return html_page("review.html.jinja", reviews=review(parts, files, now()), names=names, now=now())

    def dossier(release: str) -> Response:
        if not is_digest(release):
            raise Refused(f"{release!r} is no release id: give all of it, sha256: and 64 hex digits")
        return HTMLResponse(kept_page(parts, release), headers={"content-security-policy": DOSSIER})

    def health() -> Response:
        return JSONResponse({"healthy": True})

    app = make_site("Assay review")
    app.add_api_route("/", index, methods=["GET"], response_model=None)
    app.add_api_route("/dossier/{release}", dossier, methods=["GET"], response_model=None)
    app.add_api_route("/healthz", health, methods=["GET"], response_model=None)
    return app
