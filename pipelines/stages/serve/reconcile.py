"""Make what serves equal to what the audit log says, after any crash: loaded adapters, registry alias, route table.

The order matters: adapters before routes, so that a swap waits for nothing; the route table last, so that a current one
means that all else was done.
"""

import logging
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from data_contracts.chain import AuditRecord
from data_contracts.digests import Digest, is_digest
from data_contracts.errors import AssayError, Tampered, Unavailable
from data_contracts.lifecycle import Course, follow
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.placement import place
from pipelines.stages.serve.routes import (
    Route,
    RouteTable,
    champion_and_previous,
    may_challenge,
    project,
    read_routes,
    shadow_of,
    update_routes,
    was_approved,
)

_ABOUT_CHAMPION = (
    "champion.unverified",
    "champion.verified",
    "promotion.recorded",
    "rollback.recorded",
    "release.revoked",
)
"""After these, what was said before about a champion holds no more."""

log = logging.getLogger(__name__)


def reconcile(parts: Parts, products: Sequence[Product]) -> list[str]:
    """Bring the projections of these products in line with the audit log; says what had to be done. Safe to repeat.

    What a foreign hand changed is repaired with an audit event ``projection.repaired``. A champion that cannot be
    loaded, or a registry that cannot be reached, does not keep the routes from telling the truth: that error is raised
    at the end. One that is not what was recorded is chained as ``champion.unverified``, once until it is verified.
    """
    done: list[str] = []
    records = parts.log.records()
    loaded, failures = place(parts, products, project(records, products), follow(records), done)
    with parts.locks.hold("reconcile"):
        found = _found(parts)
        records = parts.log.records()
        course = follow(records)
        routes = []
        for route in project(records, products).routes:
            _report_champion(parts, records, route, loaded, done)
            _report_foreign_route(parts, records, route, found, done)
            before = found.of(route.product) if found else None
            try:
                _set_states(parts, route, course, done)
                _set_alias(parts, route, before, done)
                routes.append(route.model_copy(update={"alias": route.champion}))
            except Exception as error:  # the registry's library has no common error; the routes must not wait for it
                failures.append(error)
                routes.append(route.model_copy(update={"alias": before.alias if before else None}))
        _write_routes(parts, records, routes, done)
    if failures:
        raise failures[0]
    return done


def _report_champion(
    parts: Parts,
    records: Sequence[AuditRecord],
    route: Route,
    loaded: Mapping[Digest, AssayError | None],
    done: list[str],
) -> None:
    """An audit event when the champion turns out not to be what was recorded, and when it is again. A server that
    cannot be reached says nothing about it."""
    if route.champion is None or route.champion not in loaded:
        return
    if isinstance(error := loaded[route.champion], Unavailable):
        return
    if (error is None) != _is_unverified(records, route):
        return
    body: dict[str, JsonValue] = {"environment": route.environment, "release": route.champion}
    if error is not None:
        parts.log.append("champion.unverified", route.product, body | {"reason": str(error)}, actor="reconciler")
        return
    parts.log.append("champion.verified", route.product, body, actor="reconciler")
    done.append(f"verified {route.champion} of {route.product} again")


def _is_unverified(records: Sequence[AuditRecord], route: Route) -> bool:
    """Whether the log's newest word about this champion is that it cannot be verified."""
    for record in reversed(records):
        if record.product == route.product and record.event in _ABOUT_CHAMPION:
            return record.event == "champion.unverified" and record.body["release"] == route.champion
    return False


def _found(parts: Parts) -> RouteTable | None:
    """The table on disk, ``None`` when it cannot be read."""
    try:
        return read_routes(parts.home)
    except Tampered as error:
        log.error("%s", error)
        return None


def _report_foreign_route(
    parts: Parts, records: Sequence[AuditRecord], route: Route, found: RouteTable | None, done: list[str]
) -> None:
    """An audit event for a route that the log never said, at the time the table was made."""
    if found is None:
        _alert(parts, route, "routes", "unreadable", done)
        return
    then = found.of(route.product)
    if then is None:
        return
    honest = champion_and_previous(records[: found.records], route.product, then.environment)
    if found.records > len(records) or (then.champion, then.previous) != honest:
        _alert(parts, route, "routes", then.champion, done)
    if then.challenger is not None and not was_approved(records, route.product, then.challenger):
        _alert(parts, route, "challenger", then.challenger, done)
    if (then.shadow, then.shadow_share) != shadow_of(records[: found.records], route.product, then.environment):
        _alert(parts, route, "shadow", then.shadow, done)


def _set_states(parts: Parts, route: Route, course: Course, done: list[str]) -> None:
    """The tag ``assay.state`` of each version that the registry has; whatever stood there is replaced."""
    for release, state in parts.registry.states(route.product).items():
        standing = course.standings.get(release)
        if standing and standing.environment == route.environment and standing.state != state:
            parts.registry.set_state(route.product, release, standing.state)
            done.append(f"set the registry state of {release} to {standing.state}")


def _set_alias(parts: Parts, route: Route, before: Route | None, done: list[str]) -> None:
    alias = parts.registry.alias(route.product, "champion")
    if alias == route.champion:
        return
    if alias != (before.alias if before else None):
        _alert(parts, route, "alias", alias, done)
    parts.registry.set_alias(route.product, "champion", route.champion)
    done.append(f"set the registry alias of {route.product} to {route.champion or 'none'}")


def _write_routes(parts: Parts, records: Sequence[AuditRecord], routes: Sequence[Route], done: list[str]) -> None:
    """Replace these products' routes. A challenger of the present table stays while it is approved and not lapsed."""
    named = {route.product for route in routes}

    def change(table: RouteTable) -> RouteTable:
        now = parts.log.records()  # a challenger may have been approved since ``records`` were read
        kept = [route for route in table.routes if route.product not in named]
        for route in routes:
            before = table.of(route.product)
            challenger = before.live_challenger() if before else None
            if before and challenger and may_challenge(now, route.product, challenger):
                route = route.challenged_as(before)
            if before is None or before.champion != route.champion:
                done.append(f"routed {route.product} to {route.champion or 'the base model'}")
            kept.append(route)
        return RouteTable(records=len(records), routes=tuple(sorted(kept, key=lambda r: r.product)))

    update_routes(parts, change)


def _alert(parts: Parts, route: Route, projection: str, found: str | None, done: list[str]) -> None:
    """Chain what was found where; text that is no digest is not repeated."""
    safe = found if found is None or found == "unreadable" or is_digest(found) else "not a digest"
    body: dict[str, JsonValue] = {
        "environment": route.environment,
        "projection": projection,
        "found": safe,
        "expected": route.champion,
    }
    parts.log.append("projection.repaired", route.product, body, actor="reconciler")
    log.warning("%s of %s was changed by a foreign hand to %s: repaired", projection, route.product, safe)
    done.append(f"repaired {projection} of {route.product} (found {safe})")
