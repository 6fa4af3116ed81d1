"""The memory that tenants' adapters take in the model server, counted while the gateway runs.

vLLM says which adapters it holds, and tells nobody when one comes or leaves: so it is looked at, again and again.
"""

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import NamedTuple

from data_contracts.errors import AssayError, Unavailable
from data_contracts.lifecycle import follow
from data_contracts.manifests import ReleaseManifest
from data_contracts.traces import Residence
from pipelines.stages.protocols import Parts

EVERY = timedelta(minutes=5)
"""Between rows of the store; a gateway that is killed loses what was counted since the last."""


class Owner(NamedTuple):
    tenant: str
    product: str


class Residents:
    """An adapter that is there at two looks in a row was there in between, and takes a whole slot, whatever its rank;
    merged weights take their whole server. Adapters of no registered release, as while they are evaluated, are
    nobody's."""

    def __init__(self, parts: Parts, now: Callable[[], datetime]) -> None:
        self._parts, self._now = parts, now
        self._owners: dict[str, Owner] = {}
        self._there: dict[str, int] = {}
        self._looked = self._written = now()
        self._counted: defaultdict[Owner, float] = defaultdict(float)
        """Byte-seconds that are not written yet."""

    def look(self) -> None:
        """Count the time since the last look. A server that cannot be reached holds nothing."""
        there, now = self._loaded(), self._now()
        seconds = max((now - self._looked).total_seconds(), 0)
        for name in there.keys() & self._there.keys():
            if (owner := self._owner(name)) is not None:
                self._counted[owner] += there[name] * seconds
        self._there, self._looked = there, now
        if now - self._written >= EVERY:
            self.write()

    def write(self) -> None:
        """Hand on what was counted."""
        self._written = self._looked
        for owner, count in self._counted.items():
            self._parts.traces.add_residence(
                Residence(time=self._looked, tenant=owner.tenant, product=owner.product, byte_seconds=round(count))
            )
        self._counted.clear()

    def _loaded(self) -> dict[str, int]:
        """Bytes of each adapter, by its name, and of merged weights, by their release."""
        server, merged = self._parts.server, self._parts.merged.held()
        there = dict([merged] if merged else [])
        with suppress(Unavailable):
            names = set(server.loaded()) - {server.base_name()}
            there |= dict.fromkeys(names, server.slot_bytes())
        return there

    def _owner(self, name: str) -> Owner | None:
        """By the audit log, which is read where the name is a new one."""
        if name not in self._owners:
            for digest in follow(self._parts.log.records()).standings:
                with suppress(AssayError):  # the reconciler says what is wrong with it
                    release = self._parts.store.get_manifest(digest, ReleaseManifest)
                    owner = Owner(release.tenant, release.product)
                    self._owners |= {self._parts.server.name_of(release.weights): owner, digest: owner}
        return self._owners.get(name)
