"""Crashes on demand: a function that dies at its n-th call, before or after its work."""

from typing import Any


class PowerLoss(BaseException):
    """Nothing in the line may catch it."""


def fails(monkeypatch: Any, owner: object, name: str, at: int, after: bool = False) -> None:
    """Let the ``at``-th call of a function die, before or after it did its work."""
    real, calls = getattr(owner, name), []

    def call(*args: object, **named: object) -> object:
        calls.append(name)
        if len(calls) == at and not after:
            raise PowerLoss
        result = real(*args, **named)
        if len(calls) == at:
            raise PowerLoss
        return result

    monkeypatch.setattr(owner, name, call)
