"""When nothing is trained by itself: ``HOME/freeze.yaml``, a calendar that an operator writes.

Fails closed: while the file cannot be read, everything is frozen.
"""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen


class FreezeWindow(Frozen):
    """From ``begins`` until before ``ends``. ``repeats`` is a recurrence rule (RFC 5545, RRULE) that begins then. No
    ``products`` means all of them."""

    owner: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    begins: AwareDatetime
    ends: AwareDatetime
    repeats: str = ""
    products: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _makes_sense(self) -> "FreezeWindow":
        if self.ends <= self.begins:
            raise ValueError(f"it ends ({self.ends}) before it begins ({self.begins})")
        try:
            self.last_begin(self.begins)
        except (ValueError, TypeError) as error:
            raise ValueError(f"repeats: {error}; write a rule as in FREQ=WEEKLY;BYDAY=FR") from error
        return self

    def last_begin(self, now: datetime) -> datetime | None:
        """When it began for the last time; ``None`` before it ever did."""
        from dateutil.rrule import rrulestr

        if not self.repeats:
            return self.begins if self.begins <= now else None
        found: datetime | None = rrulestr(self.repeats, dtstart=self.begins).before(now, inc=True)
        return found

    def until(self, now: datetime) -> datetime | None:
        """When it ends, if it holds now."""
        began = self.last_begin(now)
        ends = None if began is None else began + (self.ends - self.begins)
        return ends if ends is not None and now < ends else None


class Calendar(Frozen):
    windows: tuple[FreezeWindow, ...] = ()


class Freeze(NamedTuple):
    """What holds now. ``until`` is ``None`` where nobody knows."""

    why: str
    until: datetime | None


def freeze_file(home: Path) -> Path:
    return home / "freeze.yaml"


def read_calendar(path: Path) -> Calendar:
    """An empty one where there is no file. Raises `BadInput` naming the file, the window and the field."""
    if not path.exists():
        return Calendar()
    try:
        return Calendar.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error


def frozen(path: Path, product: str, now: datetime) -> Freeze | None:
    """The window that holds this product longest from now on."""
    try:
        calendar = read_calendar(path)
    except BadInput as error:
        return Freeze(f"the calendar of freezes cannot be read, so that everything is frozen: {error}", None)
    ends = [
        (until, window)
        for window in calendar.windows
        if (not window.products or product in window.products) and (until := window.until(now))
    ]
    if not ends:
        return None
    until, window = max(ends, key=lambda each: each[0])
    return Freeze(f"frozen until {until.isoformat()} by {window.owner}: {window.reason}", until)
