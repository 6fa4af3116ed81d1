"""The routes as the gateway sees them: the audit log and the route table, read again when either file changes.

A champion is who the log says, whatever the table says, so that a rollback acts from the record on; a challenger
counts only with an approval in the log.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Missing, Refused, Tampered, Unavailable
from data_contracts.lifecycle import Standing, follow
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.routes import Route, RouteTable, may_challenge, project, read_routes, routes_file

log = logging.getLogger(__name__)


class Live(NamedTuple):
    """Who answers for a product now; ``release`` is ``None`` where the base does."""

    product: str
    tenant: str
    route: Literal["champion", "challenger", "base"]
    release: Digest | None


class RouteView:
    def __init__(self, parts: Parts, products: Callable[[], Sequence[Product]]) -> None:
        self.parts = parts
        self.load_products = products
        self.products: dict[str, Product] = {}
        self._routes: dict[str, Route] = {}
        self._standings: Mapping[Digest, Standing] = {}
        self._shredded: Collection[str] = ()
        self._stamp: object = None

    def route(self, product: str) -> tuple[Product, Route]:
        """Raises `Missing` for an unknown product, `Unavailable` while the audit log is not intact."""
        self.refresh()
        if product not in self.products:
            raise Missing(f"no product {product!r}")
        return self.products[product], self._routes[product]

    def standing(self, release: Digest | None) -> Standing | None:
        """Where a release stands as of the last look; ``None`` for the base. Raises `Refused` for what was never
        registered: only registry pointers are served."""
        if release is not None and release not in self._standings:
            raise Refused(f"{release} is no registered release: it is not served until an operator has looked")
        return None if release is None else self._standings[release]

    def is_shredded(self, tenant: str, release: Digest | None) -> bool:
        """Whether the key of this tenant, or of this release's, was destroyed as of the last look."""
        standing = self._standings.get(release) if release else None
        return tenant in self._shredded or (standing is not None and standing.shredded)

    def of_tenant(self, tenant: str | None) -> list[Product]:
        """A tenant's products; all of them for ``None``, the operator."""
        self.refresh()
        return [product for product in self.products.values() if tenant in (None, product.tenant)]

    def live(self) -> Iterator[Live]:
        """Nobody, while the audit log is not intact."""
        try:
            self.refresh()
        except AssayError:
            return
        for name, product in self.products.items():
            route = self._routes[name]
            yield Live(name, product.tenant, "champion" if route.champion else "base", route.champion)
            if rival := route.live_challenger():
                yield Live(name, product.tenant, "challenger", rival)

    def refresh(self, again: bool = False) -> None:
        """Read log, table and product files if log or table are other ones than before."""
        path = routes_file(self.parts.home)
        stat = path.stat() if path.exists() else None
        stamp = (self.parts.log.stamp(), (stat.st_mtime_ns, stat.st_ino) if stat else None)
        if stamp == self._stamp and not again:
            return
        try:
            records = self.parts.log.records()
        except Tampered as error:
            log.error("nothing is answered: %s", error)
            raise Unavailable(
                "the audit log is not intact: nothing is answered until an operator has looked"
            ) from error
        try:
            table = read_routes(self.parts.home)
        except Tampered as error:
            log.warning("the audit log is followed instead: %s", error)
            table = RouteTable()
        products = {product.name: product for product in self.load_products()}
        routes = {}
        for route in project(records, products.values()).routes:
            written = table.of(route.product)
            if written is not None and written.champion != route.champion:
                log.warning(
                    "routes.json says %s for %s, the audit log %s", written.champion, route.product, route.champion
                )
            if written and written.challenger and may_challenge(records, route.product, written.challenger):
                route = route.challenged_as(written)
            routes[route.product] = route
        course = follow(records)
        self._standings = course.standings  # before the routes, which name only releases that stand somewhere
        self._shredded = course.shredded
        self.products, self._routes, self._stamp = products, routes, stamp
