"""Which adapters are loaded ahead of requests: pinned ones always, others while slots are free.

Others are loaded when they are asked for (`pipelines.stages.serve.loading`), in place of the longest unused.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Refused
from data_contracts.lifecycle import Course
from data_contracts.manifests import ReleaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import base_of
from pipelines.stages.serve.routes import RouteTable

log = logging.getLogger(__name__)


class Placed(NamedTuple):
    """``loaded``: by release, what kept it from being loaded, ``None`` where it is; whoever found no free slot is not
    among them. ``failures``: what kept a champion from being pinned or loaded."""

    loaded: dict[Digest, AssayError | None]
    failures: list[Exception]


def place(parts: Parts, products: Sequence[Product], truth: RouteTable, course: Course, done: list[str]) -> Placed:
    """Pinned champions push others out. Then, into free slots alone, the other champions, the releases to roll back to,
    and shadows: else this would undo what requests have loaded. Registered releases only, none that was shredded."""
    pinned = {product.name for product in products if product.serving.placement == "pinned"}
    champions = [route.champion for route in sorted(truth.routes, key=lambda route: route.product not in pinned)]
    wanted = [*champions, *(route.previous for route in truth.routes), *(route.shadow for route in truth.routes)]
    found: dict[Digest, ReleaseManifest] = {}
    placed = Placed({}, [])

    def failed(release: Digest, error: AssayError) -> None:
        log.error("%s cannot be served: %s", release, error)
        placed.loaded[release] = error
        placed.failures.extend([error] if release in champions else [])

    for release in dict.fromkeys(filter(None, wanted)):
        try:
            if (standing := course.standings.get(release)) is None:
                raise Refused(f"{release} is no registered release: only registry pointers are served")
            if standing.shredded:
                continue
            found[release] = parts.store.get_manifest(release, ReleaseManifest)
        except AssayError as error:
            failed(release, error)
    if not found:
        return placed
    server = parts.server
    try:
        server.ensure_running(base_of(parts.store, next(iter(found.values())).base))
        loaded = set(server.loaded()) - {server.base_name()}
    except AssayError as error:
        return Placed(placed.loaded | dict.fromkeys(found, error), [*placed.failures, error])
    live = {route.product: found.get(route.champion or "") for route in truth.routes}
    pins = {name: one.weights if one and name in pinned else None for name, one in live.items()}
    kept = _pin(parts, pins, placed.failures)
    for release, manifest in found.items():
        name = server.name_of(manifest.weights)
        if name not in loaded:
            if name not in kept and len(loaded | kept) >= server.residents:
                continue
            try:
                server.ensure_loaded(manifest.weights)
            except AssayError as error:
                failed(release, error)
                continue
            loaded.add(name)
            done.append(f"loaded {name} for {manifest.product}")
        placed.loaded[release] = None
    return placed


def _pin(parts: Parts, adapters: Mapping[str, Digest | None], failures: list[Exception]) -> set[str]:
    """Their names; none where they are too many."""
    try:
        parts.server.pin(adapters)
    except AssayError as error:
        log.error("%s", error)
        failures.append(error)
        return set()
    return {parts.server.name_of(weights) for weights in adapters.values() if weights}
