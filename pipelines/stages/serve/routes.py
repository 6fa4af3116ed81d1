"""The route table: which release answers for a product. A projection of the audit log, written to ``home/routes.json``.

Only a challenger under canary is not in the log's promotions; it must be approved there, and it lapses by itself.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from data_contracts.chain import AuditRecord, live_stack
from data_contracts.digests import Digest
from data_contracts.errors import Refused, Tampered
from data_contracts.frozen import Frozen
from data_contracts.lifecycle import follow
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts


class Route(Frozen):
    """``champion`` and ``previous`` are ``None`` where the base answers; a challenger counts until ``lapses``, Unix
    seconds, and answers ``share`` of the traffic. ``shadow`` is asked ``shadow_share`` of it again, unheard. ``alias``
    is what the registry's champion alias was last set to."""

    tenant: str
    product: str
    environment: str
    champion: Digest | None
    previous: Digest | None
    challenger: Digest | None = None
    lapses: float = 0
    share: float = 0
    shadow: Digest | None = None
    shadow_share: float = 0
    alias: Digest | None = None

    def live_challenger(self) -> Digest | None:
        return self.challenger if time.time() < self.lapses else None

    def challenged_as(self, other: "Route") -> "Route":
        """With the challenger of another one."""
        return self.model_copy(
            update={"challenger": other.challenger, "lapses": other.lapses, "share": other.share},
        )


class RouteTable(Frozen):
    """``records``: how many records of the audit log it was made from."""

    records: int = 0
    routes: tuple[Route, ...] = ()

    def of(self, product: str) -> Route | None:
        return next((route for route in self.routes if route.product == product), None)


def champion_and_previous(
    records: Sequence[AuditRecord], product: str, environment: str
) -> tuple[Digest | None, Digest | None]:
    """The live release by the audit log, and the one that a rollback leads to."""
    stack = live_stack(records, product, environment)
    return stack[-1], stack[-2] if len(stack) > 1 else None


def shadow_of(records: Sequence[AuditRecord], product: str, environment: str) -> tuple[Digest | None, float]:
    """Who is asked which share of the live requests again, by the audit log; `may_shadow` of who has it said so.

    It ends with the product's next promotion or rollback, or when its release moves to another state."""
    for record in reversed(records):
        if (record.product, record.body.get("environment")) != (product, environment):
            continue
        if record.event in ("shadow.ended", "promotion.recorded", "rollback.recorded"):
            break
        if record.event == "shadow.begun":
            release, share = str(record.body["release"]), float(str(record.body["share"]))
            stays = may_shadow(records, product, release) and follow(records).standings[release].since < record.sequence
            return (release, share) if stays else (None, 0)
    return None, 0


def project(records: Sequence[AuditRecord], products: Iterable[Product]) -> RouteTable:
    """What the audit log alone says; no challengers."""
    routes = []
    for product in sorted(products, key=lambda p: p.name):
        champion, previous = champion_and_previous(records, product.name, product.environment)
        shadow, share = shadow_of(records, product.name, product.environment)
        routes.append(
            Route(
                tenant=product.tenant,
                product=product.name,
                environment=product.environment,
                champion=champion,
                previous=previous,
                shadow=shadow,
                shadow_share=share,
            )
        )
    return RouteTable(records=len(records), routes=tuple(routes))


def may_challenge(records: Sequence[AuditRecord], product: str, release: Digest) -> bool:
    """Whether this release of this product is in staging: approved, and neither promoted nor revoked since."""
    standing = follow(records).standings.get(release)
    return standing is not None and (standing.product, standing.state) == (product, "staging")


def may_shadow(records: Sequence[AuditRecord], product: str, release: Digest) -> bool:
    """Whether this release of this product is approved, to become live or to be gone back to, and is not live."""
    course = follow(records)
    standing = course.standings.get(release)
    return (
        standing is not None
        and standing.product == product
        and standing.state in ("staging", "production")
        and not course.live(release)
    )


def was_approved(records: Iterable[AuditRecord], product: str, release: Digest) -> bool:
    return any(
        record.event == "approval.accepted" and record.product == product and record.body.get("release") == release
        for record in records
    )


def read_routes(home: Path) -> RouteTable:
    """The table as it lies on disk; empty when there is none. Raises `Tampered` when it cannot be read as one."""
    path = routes_file(home)
    if not path.exists():
        return RouteTable()
    try:
        return RouteTable.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise Tampered(f"{path} is not a route table: {error.errors()[0]['msg']}") from error


def update_routes(parts: Parts, change: Callable[[RouteTable], RouteTable]) -> RouteTable:
    """Read, change and replace the table as one act, under its lock."""
    with parts.locks.hold("routes"):
        try:
            before: RouteTable | None = read_routes(parts.home)
        except Tampered:
            before = None
        after = change(before or RouteTable())
        if after != before:
            _write(routes_file(parts.home), after)
        return after


@contextmanager
def challenging(parts: Parts, product: Product, release: Digest, seconds: float = 600) -> Iterator[None]:
    """Route this approved release as the product's challenger while the block runs, at most for ``seconds``."""
    if not may_challenge(parts.log.records(), product.name, release):
        raise Refused(
            f"{release} is not in staging for {product.name} (it has no approval in the audit log, or was revoked): it "
            "cannot be a challenger"
        )
    _set_challenger(parts, product, release, time.time() + seconds, 0)
    try:
        yield
    finally:
        _set_challenger(parts, product, None, 0, 0)


def share_traffic(parts: Parts, product: Product, release: Digest, share: float, seconds: float) -> None:
    """Let the challenger answer this share for so long. Raises `Refused` where it is the challenger no more."""
    now = read_routes(parts.home).of(product.name)
    if now is None or now.challenger != release or not may_challenge(parts.log.records(), product.name, release):
        raise Refused(
            f"{release} is the challenger of {product.name} no more: another took its place, or it was revoked"
        )
    _set_challenger(parts, product, release, time.time() + seconds, share)


def routes_file(home: Path) -> Path:
    return home / "routes.json"


def _set_challenger(parts: Parts, product: Product, release: Digest | None, lapses: float, share: float) -> None:
    def change(table: RouteTable) -> RouteTable:
        route = table.of(product.name) or Route(
            tenant=product.tenant,
            product=product.name,
            environment=product.environment,
            champion=None,
            previous=None,
        )
        others = [other for other in table.routes if other.product != product.name]
        changed = route.model_copy(update={"challenger": release, "lapses": lapses, "share": share})
        return table.model_copy(update={"routes": tuple(sorted([*others, changed], key=lambda r: r.product))})

    update_routes(parts, change)


def _write(path: Path, table: RouteTable) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w") as handle:
        json.dump(table.payload(), handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    part.replace(path)
