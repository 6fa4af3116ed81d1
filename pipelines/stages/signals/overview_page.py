"""The overview of each product as a page of the review server, under its protections; it runs no script."""

from collections.abc import Callable

from fastapi import FastAPI
from fastapi.responses import Response

from pipelines.stages.release.pages import html_page
from pipelines.stages.signals.overview import Overview


def add_overviews(app: FastAPI, look: Callable[[str], Overview]) -> None:
    """``look`` makes the overview of a product by its name, anew for each request."""

    def product(name: str) -> Response:
        return html_page("overview.html.jinja", it=look(name))

    app.add_api_route("/product/{name}", product, methods=["GET"], response_model=None)
