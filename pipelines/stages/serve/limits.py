"""How much each tenant may ask, and how much reaches vLLM at once: ``HOME/limits.yaml``, which an operator writes.

Without the file no tenant is limited, and the gateway bounds itself alone.
"""

import logging
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen

log = logging.getLogger(__name__)


class TenantLimits(Frozen):
    """``None`` is no limit. Tokens are those of prompts and answers together; days and months are UTC's."""

    requests_a_minute: int | None = Field(default=None, ge=1)
    tokens_a_minute: int | None = Field(default=None, ge=1)
    tokens_a_day: int | None = Field(default=None, ge=1)
    tokens_a_month: int | None = Field(default=None, ge=1)
    in_flight: int | None = Field(default=None, ge=1)
    """Requests at once, those that wait included."""


class GatewayLimits(Frozen):
    """The default is what vLLM computes at once on a CPU, and as many again that wait. ``cold_queue`` of those in
    flight may wait for their adapters to be loaded, so that the others have places."""

    in_flight: int = Field(default=128, ge=1)
    queue: int = Field(default=128, ge=0)
    wait_seconds: float = Field(default=30, gt=0)
    cold_queue: int = Field(default=64, ge=1)


class Limits(Frozen):
    """``default`` is for tenants that are not named."""

    gateway: GatewayLimits = GatewayLimits()
    default: TenantLimits = TenantLimits()
    tenants: dict[str, TenantLimits] = {}

    def of(self, tenant: str) -> TenantLimits:
        return self.tenants.get(tenant, self.default)


class LimitsFile:
    """The limits of now; the file is read again when it changed. One that became invalid changes nothing."""

    def __init__(self, home: Path) -> None:
        self.path = limits_file(home)
        self._stamp = self._found()
        self._limits = read_limits(self.path)

    def now(self) -> Limits:
        if (stamp := self._found()) != self._stamp:
            self._stamp = stamp
            try:
                self._limits = read_limits(self.path)
            except BadInput as error:
                log.error("the limits stay as they were: %s", error)
        return self._limits

    def _found(self) -> tuple[int, int] | None:
        if not self.path.exists():
            return None
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_ino


def limits_file(home: Path) -> Path:
    return home / "limits.yaml"


def read_limits(path: Path) -> Limits:
    """No limits where there is no file. Raises `BadInput` naming the file and the field."""
    if not path.exists():
        return Limits()
    try:
        return Limits.model_validate(yaml.safe_load(path.read_text()) or {})
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"{path}: {error}") from error
