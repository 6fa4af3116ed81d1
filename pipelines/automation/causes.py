"""One run for each record of the audit log that asks for one. Dagster's run keys let none start twice; but a run that
it gave up before it started (the daemon died, the code server could not be reached) would be forgotten: it is asked
for again under another key, until one starts."""

from collections.abc import Sequence
from typing import NamedTuple

import dagster as dg

CAUSE = "assay/cause"
TRIES = 10
_GIVEN_UP = "the run for %s could not start %d times: see its runs in Dagster, and start it yourself"


class Cause(NamedTuple):
    """A record's sequence, the name of what it asks for, and the run without its key."""

    sequence: int
    name: str
    request: dg.RunRequest


class Cursor(NamedTuple):
    """Records below ``open`` need no run any more; those below ``seen`` were seen."""

    open: int
    seen: int

    def __str__(self) -> str:
        return f"{self.open} {self.seen}"


def cursor_of(text: str | None) -> Cursor:
    """As it was kept; one number stands for both."""
    numbers = [int(number) for number in (text or "0").split()]
    return Cursor(numbers[0], numbers[-1])


def asked(
    context: dg.SensorEvaluationContext, causes: Sequence[Cause], records: int
) -> tuple[list[dg.RunRequest], Cursor]:
    """What to ask for now, and from where to look next time. ``causes`` are those from the cursor's ``open`` on, of a
    log of so many ``records``."""
    requests: list[dg.RunRequest] = []
    waiting: list[int] = []
    for cause in causes:
        runs = context.instance.get_run_records(dg.RunsFilter(tags={CAUSE: cause.name}))
        lost = never_started(runs)
        if len(lost) >= TRIES:
            context.log.error(_GIVEN_UP, cause.name, len(lost))
        elif len(lost) == len(runs):
            key = f"{cause.name} {len(lost)}" if lost else cause.name
            tags = {**cause.request.tags, CAUSE: cause.name}
            requests.append(cause.request.with_replaced_attrs(run_key=key, tags=tags))
            waiting.append(cause.sequence)
        elif all(run.start_time is None and not run.dagster_run.is_finished for run in runs if run not in lost):
            waiting.append(cause.sequence)
    return requests, Cursor(min(waiting, default=records), records)


def never_started(runs: Sequence[dg.RunRecord]) -> list[dg.RunRecord]:
    return [run for run in runs if run.dagster_run.status == dg.DagsterRunStatus.FAILURE and run.start_time is None]
