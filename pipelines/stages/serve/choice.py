"""Who answers a request, decided once when it begins; and who answers instead, where that release cannot."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Missing
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.answer import Target, target
from pipelines.stages.serve.cohort import cohort, is_challenged
from pipelines.stages.serve.errors import Denied, shown, shredded
from pipelines.stages.serve.routes import Route
from pipelines.stages.serve.sunset import ended, notice
from pipelines.stages.serve.view import RouteView

CHALLENGER = "x-assay-challenger"


class Chosen(NamedTuple):
    """``notices``: headers of a deprecation."""

    goal: Target
    notices: dict[str, str]


class Choice:
    """``secret`` keys the cohorts; ``now`` is the clock that sunsets go by."""

    def __init__(self, parts: Parts, view: RouteView, secret: str, now: Callable[[], datetime]) -> None:
        self.parts, self.view, self.secret, self.now = parts, view, secret, now

    def product(self, name: str, tenant: str | None) -> tuple[Product, Route]:
        """A product of the tenant's; ``None`` is the operator, whose all are. Raises `Denied`, also for
        a tenant that was shredded: nobody answers in the place of what it had."""
        none = Denied(404, "model_not_found", f"there is no product {name[:64]!r} for this key")
        try:
            product, route = self.view.route(name)
        except Missing:
            raise none from None
        if tenant is not None and product.tenant != tenant:
            raise none
        if self.view.is_shredded(product.tenant, route.champion):
            raise shredded(name)
        return product, route

    def first(
        self, product: Product, route: Route, body: Mapping[str, Any], tenant: str | None, challenger: str | None
    ) -> Chosen:
        """``tenant`` is ``None`` for the operator, who may ask for a ``challenger``. Raises `Denied`."""
        if challenger is not None:
            asked = _challenger(challenger, route, operator=tenant is None)
            return Chosen(target(self.parts, product, asked, "challenger"), {})
        who = None
        if tenant is not None and route.share > 0 and (rival := route.live_challenger()):
            who = cohort(self.secret, rival, tenant, body.get("user"))
            if is_challenged(who, route.share):
                return Chosen(target(self.parts, product, rival, "challenger").of_cohort(who), {})
        return self._champion(product, route, who)

    def instead(
        self, product: Product, goal: Target, failed: Collection[Digest | None], why: AssayError
    ) -> Chosen | None:
        """Who answers for ``goal``, which could not; ``failed``: all that were asked. ``None`` where nobody may."""
        if goal.adapter is None or goal.probes:
            return None  # below the base is nobody
        reasons = [goal.reason, f"release {goal.release} could not answer ({shown(why)})"]
        _, route = self.view.route(product.name)  # of now: the one that failed may have been revoked meanwhile
        if self.view.is_shredded(product.tenant, route.champion):
            return None
        if route.champion not in failed:
            try:
                found, notices = self._champion(product, route, goal.cohort)
            except Denied:
                return None
            reasons.append(found.reason)
        elif product.serving.base_as_fallback:
            found, notices = goal.model_copy(update={"route": "base", "release": None, "adapter": None}), {}
        else:
            return None
        return Chosen(found.model_copy(update={"reason": "; ".join(filter(None, reasons))}), notices)

    def _champion(self, product: Product, route: Route, who: str | None) -> Chosen:
        standing = self.view.standing(route.champion)
        notices = notice(standing)
        if route.champion is not None and (why := ended(product.name, route.champion, standing, self.now())):
            raise Denied(410, "release_sunset", why, notices)
        return Chosen(target(self.parts, product, route.champion, "champion").of_cohort(who), notices)


def _challenger(asked: str, route: Route, operator: bool) -> str:
    if not operator:
        raise Denied(403, "not_allowed", f"{CHALLENGER} is for this installation's own canary")
    if asked != route.live_challenger():
        raise Denied(409, "not_the_challenger", f"{asked} is not the challenger of {route.product} now")
    return asked
