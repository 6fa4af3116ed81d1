"""What each tenant used in a time: minutes of devices that trained, requests and tokens that were answered, memory that
its adapters took while they were loaded; and what that comes to by ``HOME/prices.yaml``, which an operator writes.
Without the file there are no amounts of money.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from data_contracts.runs import RunRecord
from data_contracts.traces import Usage
from pipelines.recipes.product import Product
from pipelines.stages.protocols import Parts
from pipelines.stages.serve.capacity import GIB

UNKNOWN = "unknown"
"""Stands for the tenant of a product that has neither a file nor a release."""


class Prices(Frozen):
    """In ``currency``: of a minute of one GPU, of a minute of a machine that trains without one, of 1,000 tokens, and
    of a GiB of the model server's memory for an hour. Each is stated, and may be 0: one that was forgotten must not
    look like a low bill. ``labelling_hour``, of a person who labels rows, is no part of a bill; without it a
    retraining's effort has no amount."""

    currency: str = Field(min_length=1)
    gpu_minute: float = Field(ge=0, allow_inf_nan=False)
    cpu_minute: float = Field(ge=0, allow_inf_nan=False)
    prompt_1000: float = Field(ge=0, allow_inf_nan=False)
    completion_1000: float = Field(ge=0, allow_inf_nan=False)
    memory_gib_hour: float = Field(ge=0, allow_inf_nan=False)
    labelling_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Cost(Frozen):
    """What a tenant used, of one product or (``product`` empty) of all. ``gib_hours``: memory of its adapters times the
    time that they were loaded. ``training``, ``serving`` and ``memory`` are amounts of money, ``None`` without
    prices."""

    tenant: str
    product: str
    runs: int
    gpu_minutes: float
    cpu_minutes: float
    requests: int
    prompt_tokens: int
    completion_tokens: int
    gib_hours: float
    training: float | None
    serving: float | None
    memory: float | None

    @property
    def total(self) -> float | None:
        if self.training is None or self.serving is None or self.memory is None:
            return None
        return round(self.training + self.serving + self.memory, 6)


def costs(
    parts: Parts, products: Sequence[Product], since: datetime | None, until: datetime | None, prices: Prices | None
) -> list[Cost]:
    """By tenant and product, of those with any use. From ``since`` on and before ``until``: a run counts whole, by when
    it started, an answer by when it ended, and memory by when it was written (every few minutes), so that months add
    up. A run that goes on counts once it has ended.
    """
    ended = [run for run in parts.runs.find(since=since) if run.ended and (until is None or run.started < until)]
    owners = _owners(parts, products, {run.product for run in ended})
    runs: defaultdict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in ended:
        runs[owners.get(run.product, UNKNOWN), run.product].append(run)
    answers = {(use.tenant, use.product): use for use in parts.traces.usage(since, until)}
    return [
        _cost(whose, runs.get(whose, ()), answers.get(whose) or _none(*whose), prices)
        for whose in sorted(runs.keys() | answers.keys())
    ]


def sums(found: Iterable[Cost]) -> list[Cost]:
    """Of each tenant, over its products."""
    by_tenant: defaultdict[str, list[Cost]] = defaultdict(list)
    for each in found:
        by_tenant[each.tenant].append(each)
    return [_sum(tenant, each) for tenant, each in sorted(by_tenant.items())]


def prices_file(home: Path) -> Path:
    return home / "prices.yaml"


def read_prices(path: Path) -> Prices | None:
    """``None`` where there is no file. Raises `BadInput` naming the file and the field."""
    if not path.exists():
        return None
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error


def _owners(parts: Parts, products: Sequence[Product], trained: set[str]) -> dict[str, str]:
    """Product -> tenant, by the product files; of a product without one, by its newest release."""
    known = {product.name: product.tenant for product in products}
    if lost := trained - known.keys():
        for release, standing in follow(parts.log.records()).standings.items():
            if standing.product in lost:
                known[standing.product] = parts.store.get_manifest(release, ReleaseManifest).tenant
    return known


def _none(tenant: str, product: str) -> Usage:
    return Usage(tenant=tenant, product=product, requests=0, prompt_tokens=0, completion_tokens=0)


def _cost(whose: tuple[str, str], runs: Sequence[RunRecord], used: Usage, prices: Prices | None) -> Cost:
    """A run that ended before it told its devices counts as one without a GPU."""
    gpu = round(sum(run.gpu_seconds for run in runs) / 60, 3)
    cpu = round(sum(run.seconds for run in runs if not run.gpu_seconds) / 60, 3)
    gib_hours = round(used.byte_seconds / GIB / 3600, 6)
    training = serving = memory = None
    if prices is not None:
        training = round(gpu * prices.gpu_minute + cpu * prices.cpu_minute, 6)
        tokens = used.prompt_tokens * prices.prompt_1000 + used.completion_tokens * prices.completion_1000
        serving = round(tokens / 1000, 6)
        memory = round(gib_hours * prices.memory_gib_hour, 6)
    tenant, product = whose
    return Cost(
        tenant=tenant,
        product=product,
        runs=len(runs),
        gpu_minutes=gpu,
        cpu_minutes=cpu,
        requests=used.requests,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        gib_hours=gib_hours,
        training=training,
        serving=serving,
        memory=memory,
    )


def _sum(tenant: str, parts: Sequence[Cost]) -> Cost:
    def money(amounts: Iterable[float | None]) -> float | None:
        known = [amount for amount in amounts if amount is not None]
        return round(sum(known), 6) if known else None

    return Cost(
        tenant=tenant,
        product="",
        runs=sum(each.runs for each in parts),
        gpu_minutes=round(sum(each.gpu_minutes for each in parts), 3),
        cpu_minutes=round(sum(each.cpu_minutes for each in parts), 3),
        requests=sum(each.requests for each in parts),
        prompt_tokens=sum(each.prompt_tokens for each in parts),
        completion_tokens=sum(each.completion_tokens for each in parts),
        gib_hours=round(sum(each.gib_hours for each in parts), 6),
        training=money(each.training for each in parts),
        serving=money(each.serving for each in parts),
        memory=money(each.memory for each in parts),
    )
