"""Who may ask now: the limits of a tenant first, then a place among the requests that vLLM answers at once.

Who is refused here reaches nobody and leaves no trace, since no release failed them; `Load` counts them.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from math import ceil
from typing import Any

from pipelines.stages.protocols import TraceStore
from pipelines.stages.serve.concurrency import Concurrency, Gone
from pipelines.stages.serve.errors import LIMIT, Denied, over_limit
from pipelines.stages.serve.limits import LimitsFile, TenantLimits
from pipelines.stages.serve.window import PERIODS, Spent, Window


class Account:
    """What a tenant has used. ``reserved``: the most tokens that its requests in flight may still need."""

    def __init__(self, day: Spent, month: Spent) -> None:
        self.in_flight = 0
        self.reserved = 0
        self.requests = Window()
        self.tokens = Window()
        self.day = day
        self.month = month

    def used(self, now: datetime) -> dict[str, int]:
        """By the names of the limits."""
        time = now.timestamp()
        return {
            "requests_a_minute": self.requests.total(time),
            "tokens_a_minute": self.tokens.total(time) + self.reserved,
            "tokens_a_day": self.day.tokens(now) + self.reserved,
            "tokens_a_month": self.month.tokens(now) + self.reserved,
            "in_flight": self.in_flight,
        }

    def check(self, tenant: str, limits: TenantLimits, now: datetime) -> None:
        """A request is admitted while less than each limit is used: what it needs itself may pass one. Raises `Denied`
        naming the limit."""
        used = self.used(now)
        for name, most in limits.model_dump(exclude_none=True).items():
            if used[name] >= most:
                code = "insufficient_quota" if name in ("tokens_a_day", "tokens_a_month") else "rate_limit_exceeded"
                raise over_limit(name, code, f"{tenant} may use {most}", ceil(self._wait(name, most, now)))

    def _wait(self, name: str, most: int, now: datetime) -> float:
        """Seconds until less is used; 0 where that hangs on requests in flight."""
        if name == "requests_a_minute":
            return self.requests.wait(now.timestamp(), most)
        if name == "tokens_a_minute":
            return self.tokens.wait(now.timestamp(), most - self.reserved)
        spent = {"tokens_a_day": self.day, "tokens_a_month": self.month}.get(name)
        return spent.wait(now) if spent and spent.tokens(now) >= most else 0


class Place:
    """A request's place, from its admission until it leaves."""

    def __init__(self, leave: Callable[[int], None]) -> None:
        self._leave: Callable[[int], None] | None = leave

    def leave(self, tokens: int = 0) -> None:
        """Ended, after so many tokens. Safe to repeat: the first time counts."""
        if self._leave is not None:
            self._leave(tokens)
            self._leave = None


class Admission:
    """``now`` is the clock of all limits."""

    def __init__(self, traces: TraceStore, limits: LimitsFile, now: Callable[[], datetime]) -> None:
        self._traces, self._limits, self._now = traces, limits, now
        self._accounts: dict[str, Account] = {}
        self._opening = asyncio.Lock()
        self.concurrency = Concurrency(limits.now().gateway)
        self.load = self.concurrency.load

    async def enter(self, tenant: str, most: int, operator: bool, gone: Gone) -> Place:
        """A place for a request of about ``most`` tokens at most. The operator's count and are not held up: a canary
        would take the load for its challenger's failure. Raises `Denied`."""
        account = await self._account(tenant)
        try:
            if not operator:
                account.check(tenant, self._limits.now().of(tenant), self._now())
            account.requests.add(self._now().timestamp(), 1)
            account.in_flight += 1
            account.reserved += most
            try:
                await self.concurrency.enter(gone, at_once=operator)
            except BaseException:
                account.in_flight -= 1
                account.reserved -= most
                raise
        except Denied as denied:
            self.refused(tenant, denied)
            raise

        def leave(tokens: int) -> None:
            self.concurrency.leave(at_once=operator)
            account.in_flight -= 1
            account.reserved -= most
            account.tokens.add(self._now().timestamp(), tokens)
            for spent in (account.day, account.month):
                spent.add(self._now(), tokens)

        return Place(leave)

    async def count(self, tenant: str) -> None:
        """A request that vLLM is not asked for: it counts as one of the minute, and no other limit holds it up. Raises
        `Denied`."""
        account = await self._account(tenant)
        a_minute = self._limits.now().of(tenant).requests_a_minute
        try:
            account.check(tenant, TenantLimits(requests_a_minute=a_minute), self._now())
        except Denied as denied:
            self.refused(tenant, denied)
            raise
        account.requests.add(self._now().timestamp(), 1)

    def refused(self, tenant: str, denied: Denied) -> None:
        if denied.status == 429:
            self.load.refused[tenant, denied.headers[LIMIT]] += 1

    def report(self) -> dict[str, Any]:
        """What goes on, and what each tenant has used of its limits."""
        now = self._now()
        return {
            "in_flight": self.load.in_flight,
            "queued": self.load.queued,
            "cold": self.load.cold,
            "left": self.load.left,
            "limits": self.concurrency.rule.payload(),
            "tenants": {
                tenant: {
                    "used": account.used(now),
                    "limits": self._limits.now().of(tenant).model_dump(exclude_none=True),
                    "refused": {limit: count for (who, limit), count in self.load.refused.items() if who == tenant},
                }
                for tenant, account in sorted(self._accounts.items())
            },
        }

    async def _account(self, tenant: str) -> Account:
        """What was spent before this gateway began is asked for once a tenant."""
        if tenant not in self._accounts:
            async with self._opening:
                if tenant not in self._accounts:
                    self._accounts[tenant] = await asyncio.to_thread(self._opened, tenant)
        return self._accounts[tenant]

    def _opened(self, tenant: str) -> Account:
        now = self._now()
        day, month = (Spent(period, now) for period in PERIODS)
        for spent, before in zip((day, month), self._traces.spent_before(tenant, now.date()), strict=True):
            spent.add(now, before)
        return Account(day, month)
