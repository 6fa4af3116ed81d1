"""One product at a glance: what is live and since when, its health, drift and decisions, what waits for a person, what
holds it, and what it cost. A fold over what the parts record; it reads and changes nothing.

What cannot be read at the moment is named among the faults, and the rest is told.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeVar

from data_contracts.chain import ALL, AuditRecord
from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Refused
from data_contracts.frozen import Frozen
from data_contracts.lifecycle import State, follow
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.release.review import Candidate, review_one
from pipelines.stages.serve.routes import champion_and_previous, may_challenge, read_routes
from pipelines.stages.signals.alerts import Alert, alerts
from pipelines.stages.signals.costs import Cost, Prices, costs, prices_file, read_prices
from pipelines.stages.signals.drift import DriftReport
from pipelines.stages.signals.freeze import freeze_file, frozen
from pipelines.stages.signals.incident import incident_of
from pipelines.stages.signals.retrain_decision import RetrainDecision, disputes_of, newest_decision

HEALTH_OF = timedelta(hours=1)
_Told = TypeVar("_Told")


class Running(Protocol):
    """A program of the standing system, as its supervisor sees it."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def detail(self) -> str: ...


class Consoles(NamedTuple):
    """Addresses of the programs that a page links to, without anybody's password."""

    dagster: str
    mlflow: str


class Health(Frozen):
    """Of one program. One that was not started is not healthy."""

    name: str
    state: str
    healthy: bool
    detail: str


class Answered(Frozen):
    """What the live release did in the last hour: whole answers, and requests that it failed."""

    answers: int
    failed: int


class Drift(Frozen):
    """The newest report. ``of_live``: whether it is about what is live now."""

    time: datetime
    report: DriftReport
    of_live: bool


class Dispute(Frozen):
    by: str
    time: datetime
    reason: str


class Decided(Frozen):
    """The newest decision about retraining, and who objected."""

    time: datetime
    record: int
    decision: RetrainDecision
    disputes: tuple[Dispute, ...]


class Overview(Frozen):
    """``live``, ``previous``, ``challenger``: ``None`` is the base for the first two and nobody for the third.
    ``alerts``: those that last. ``held``: what keeps the line from training by itself now. ``pending``: releases that
    may be approved. ``cost``: of this month (UTC), ``None`` where nothing was used. ``links``: name -> address."""

    product: str
    environment: str
    tenant: str
    time: datetime
    live: Digest | None
    since: datetime | None
    state: State | None
    sunset: datetime | None
    previous: Digest | None
    challenger: Digest | None
    alerts: tuple[Alert, ...]
    programs: tuple[Health, ...]
    answered: Answered | None
    drift: Drift | None
    decided: Decided | None
    held: tuple[str, ...]
    locked: str
    pending: tuple[Candidate, ...]
    cost: Cost | None
    currency: str | None
    links: dict[str, str]
    faults: tuple[str, ...]

    @property
    def next_decision(self) -> str:
        """When the line decides again about retraining, in words."""
        if self.live is None:
            return "once a release is live: the base is not watched for drift"
        if self.decided is None or self.decided.decision.decision != "hold":
            return "when the live release has answered a whole new window and the schedule looks"
        until = self.decided.decision.not_before
        after = f"{until:%Y-%m-%d %H:%M} UTC" if until else "whoever holds it lets go"
        return f"when the schedule looks after {after}"

    @property
    def unwell(self) -> list[str]:
        return [each.name for each in self.programs if not each.healthy]


def overview(
    parts: Parts,
    products: Sequence[Product],
    name: str,
    programs: Callable[[], Sequence[Running]],
    consoles: Consoles,
    now: datetime,
) -> Overview:
    """The product of this name. Raises `Refused` where none has a file, `ChainBroken` for a log that is not intact."""
    product = next((each for each in products if each.name == name), None)
    if product is None:
        raise Refused(f"there is no product {name!r}: a file in pipelines/products makes one")
    records = parts.log.records()
    faults: list[str] = []

    def told(what: str, read: Callable[[], _Told]) -> _Told | None:
        try:
            return read()
        except (AssayError, OSError) as error:
            faults.append(f"{what}: {error}")
            return None

    found = review_one(parts, records, product, now)
    faults += [f"release {each.release}: {each.why}" for each in found.faults]
    standing = follow(records).standings.get(found.live) if found.live else None
    prices = told("prices", lambda: read_prices(prices_file(parts.home)))
    return Overview(
        product=product.name,
        environment=product.environment,
        tenant=product.tenant,
        time=now,
        live=found.live,
        since=found.since,
        state=standing.state if standing else None,
        sunset=found.sunset,
        previous=champion_and_previous(records, product.name, product.environment)[1],
        challenger=told("routes", lambda: _challenger(parts, records, product)),
        alerts=tuple(a for a in alerts(records, now) if a.over is None and a.product in (product.name, ALL)),
        programs=tuple(told("programs", lambda: [_health(each) for each in programs()]) or ()),
        answered=told("traces", lambda: _answered(parts, product, found.live, now)),
        drift=told("drift", lambda: _drift(parts, records, product, found.live)),
        decided=told("decision", lambda: _decided(parts, records, product)),
        held=_held(parts, records, product, now),
        locked=found.locked,
        pending=found.candidates,
        cost=told("cost", lambda: _cost(parts, products, product, now, prices)),
        currency=prices.currency if prices else None,
        links=_links(product, found.live, consoles),
        faults=tuple(faults),
    )


def _challenger(parts: Parts, records: Sequence[AuditRecord], product: Product) -> Digest | None:
    route = read_routes(parts.home).of(product.name)
    release = route.live_challenger() if route else None
    return release if release and may_challenge(records, product.name, release) else None


def _health(program: Running) -> Health:
    return Health(name=program.name, state=program.state, healthy=program.healthy, detail=program.detail)


def _answered(parts: Parts, product: Product, live: Digest | None, now: datetime) -> Answered | None:
    """Sums that the store makes; no trace is read one by one."""
    if live is None:
        return None
    seen = [each for each in parts.traces.saw(product.name, live, now - HEALTH_OF) if each.tenant == product.tenant]
    return Answered(answers=sum(each.answers for each in seen), failed=sum(each.failed for each in seen))


def _drift(parts: Parts, records: Sequence[AuditRecord], product: Product, live: Digest | None) -> Drift | None:
    newest = next((r for r in reversed(records) if r.event == "drift.recorded" and r.product == product.name), None)
    if newest is None:
        return None
    report = parts.store.get_manifest(str(newest.body["report"]), DriftReport)
    return Drift(time=newest.time, report=report, of_live=report.release == live)


def _decided(parts: Parts, records: Sequence[AuditRecord], product: Product) -> Decided | None:
    newest = newest_decision(records, product.name)
    if newest is None:
        return None
    disputes = (
        Dispute(by=each.actor, time=each.time, reason=str(each.body["reason"])) for each in disputes_of(records, newest)
    )
    decision = parts.store.get_manifest(str(newest.body["record"]), RetrainDecision)
    return Decided(time=newest.time, record=newest.sequence, decision=decision, disputes=tuple(disputes))


def _held(parts: Parts, records: Sequence[AuditRecord], product: Product, now: datetime) -> tuple[str, ...]:
    freeze, incident = frozen(freeze_file(parts.home), product.name, now), incident_of(records, product.name)
    found = [freeze.why] if freeze else []
    if incident:
        found.append(f"an incident is open since {incident.time:%Y-%m-%d %H:%M} UTC: {incident.body['reason']}")
    return tuple(found)


def _cost(
    parts: Parts, products: Sequence[Product], product: Product, now: datetime, prices: Prices | None
) -> Cost | None:
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = {(each.tenant, each.product): each for each in costs(parts, products, month, None, prices)}
    return found.get((product.tenant, product.name))


def _links(product: Product, live: Digest | None, consoles: Consoles) -> dict[str, str]:
    found = {
        "Dagster": f"{consoles.dagster}/assets/release/champion?view=partitions&partition={product.name}",
        "MLflow": f"{consoles.mlflow}/#/models/{product.name}",
    }
    return found | ({"Dossier of the live release": f"/dossier/{live}"} if live else {})
