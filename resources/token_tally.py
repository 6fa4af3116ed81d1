"""Tokens that each tenant has had of its day and month, in a file beside the spool: known when the store is not."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import ValidationError

from data_contracts.errors import AssayError
from data_contracts.frozen import Frozen
from data_contracts.traces import Trace

Tokens = dict[tuple[str, str], int]
"""(tenant, "2026-11" or "2026-11-23") -> tokens of prompts and answers together."""

log = logging.getLogger(__name__)


class _File(Frozen):
    """``segments``: of the spool, those whose traces are in it and that may still lie there."""

    tokens: dict[str, dict[str, int]]
    segments: tuple[str, ...]


class TokenTally:
    """``seed`` sums the store: by tenant, of this day and of its month."""

    def __init__(self, path: Path, seed: Callable[[date], Tokens]) -> None:
        self.path, self._seed = path, seed
        self._before: Tokens = {}

    def load(self, left: Iterable[tuple[str, Iterable[Trace]]]) -> None:
        """Take up what was counted before, and the traces of the segments that wait."""
        file = self._read()
        tokens: Counter[tuple[str, str]] = Counter()
        if file is None:
            try:
                tokens.update(self._seed(datetime.now(UTC).date()))
            except AssayError as error:
                log.warning("budgets count from nothing until the next start: %s", error)
        else:
            tokens.update({(who, period): n for who, each in file.tokens.items() for period, n in each.items()})
        for segment, traces in left:
            if file is None or segment not in file.segments:
                _add(tokens, traces)
        self._before = dict(tokens)

    def before(self, tenant: str, day: date) -> tuple[int, int]:
        """Tokens of this day, and of its month, when this was loaded."""
        return self._before.get((tenant, _day(day)), 0), self._before.get((tenant, _month(day)), 0)

    def count(self, segment: str, traces: list[Trace]) -> None:
        """Once a segment, when the store holds its traces."""
        file = self._read()
        tokens: Counter[tuple[str, str]] = Counter()
        if file is None:
            tokens.update(self._seed(max((each.time.date() for each in traces), default=datetime.now(UTC).date())))
        elif segment in file.segments:
            return
        else:
            tokens.update({(who, period): n for who, each in file.tokens.items() for period, n in each.items()})
            _add(tokens, traces)
        waiting = [each for each in (file.segments if file else ()) if (self.path.parent / each).exists()]
        self._write(tokens, (*waiting, segment))

    def _read(self) -> _File | None:
        """``None`` where there is none, or a power cut spoilt it."""
        try:
            return _File.model_validate_json(self.path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def _write(self, tokens: Tokens, segments: tuple[str, ...]) -> None:
        """Of the newest day and month alone."""
        newest = {len(period): period for _, period in sorted(tokens, key=lambda each: each[1])}
        kept: dict[str, dict[str, int]] = {}
        for (tenant, period), count in sorted(tokens.items()):
            if period in newest.values():
                kept.setdefault(tenant, {})[period] = count
        part = self.path.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_File(tokens=kept, segments=segments).model_dump_json().encode())
        part.replace(self.path)


def _add(tokens: Tokens, traces: Iterable[Trace]) -> None:
    for each in traces:
        for period in (_day(each.time), _month(each.time)):
            tokens[each.tenant, period] = tokens.get((each.tenant, period), 0) + (
                each.prompt_tokens + each.completion_tokens
            )


def _day(day: date) -> str:
    return f"{day:%Y-%m-%d}"


def _month(day: date) -> str:
    return f"{day:%Y-%m}"
