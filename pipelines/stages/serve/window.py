"""What was used in the last minute, and what of a day's or month's budget: counts without limits of their own."""

from collections import deque
from datetime import datetime, timedelta
from typing import Literal

SECONDS = 60.0

Period = Literal["day", "month"]
PERIODS: tuple[Period, Period] = ("day", "month")


class Window:
    """Amounts of the last 60 seconds. Times are seconds that never go back."""

    def __init__(self) -> None:
        self._events: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, now: float, amount: int) -> None:
        self.total(now)
        self._events.append((now, amount))
        self._total += amount

    def total(self, now: float) -> int:
        while self._events and now - self._events[0][0] >= SECONDS:
            self._total -= self._events.popleft()[1]
        return self._total

    def wait(self, now: float, limit: int) -> float:
        """Seconds until the total is below ``limit``, or until all is gone where it can never be."""
        left, seconds = self.total(now), 0.0
        for time, amount in self._events:
            if left < limit:
                break
            left -= amount
            seconds = time + SECONDS - now
        return seconds


class Spent:
    """Tokens of the present day or month."""

    def __init__(self, period: Period, now: datetime) -> None:
        self.period: Period = period
        self.since = _began(period, now)
        self._tokens = 0

    def add(self, now: datetime, tokens: int) -> None:
        self._tokens = self.tokens(now) + tokens

    def tokens(self, now: datetime) -> int:
        if (since := _began(self.period, now)) != self.since:
            self.since, self._tokens = since, 0
        return self._tokens

    def wait(self, now: datetime) -> float:
        """Seconds until the next one."""
        start = _began(self.period, now)
        ends = start + timedelta(days=1) if self.period == "day" else _began("month", start + timedelta(days=32))
        return (ends - now).total_seconds()


def _began(period: Period, now: datetime) -> datetime:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if period == "day" else midnight.replace(day=1)
