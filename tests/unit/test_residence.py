"""Whose adapters take the model server's memory, and for how long: a GiB a slot in the fake server."""

from pathlib import Path

import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Unavailable
from pipelines.stages.serve.residence import EVERY, Residents
from tests.support.gateway import Clock
from tests.support.serving import FakeParts, exported, registered, tiny_product

GIB = 1 << 30
A, B = sha256_bytes(b"a"), sha256_bytes(b"b")


class Place:
    """Two tenants with a release each, a clock, and who looks."""

    def __init__(self, folder: Path) -> None:
        self.parts, self.clock = FakeParts(folder), Clock()
        for name, tenant, weights in (("billing", "acme", A), ("pricing", "globex", B)):
            product = tiny_product(folder / "product", name, tenant)
            registered(self.parts, product, self.parts.base.digest, weights)
        self.residents = Residents(self.parts, self.clock)

    def load(self, *weights: Digest) -> None:
        for each in weights:
            self.parts.server.ensure_loaded(each)

    def look(self, seconds: float = 0) -> None:
        self.clock.forward(seconds)
        self.residents.look()

    def used(self) -> dict[tuple[str, str], float]:
        """GiB-seconds that the store tells of."""
        self.residents.write()
        assert self.parts.traces.flush()
        return {(use.tenant, use.product): use.byte_seconds / GIB for use in self.parts.traces.usage(None, None)}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_tenant_has_the_time_that_its_adapters_were_loaded(place: Place) -> None:
    place.load(A)
    place.look()
    place.look(5)
    place.load(B)
    place.look(5)
    place.look(5)
    place.parts.server.unload(A)
    place.look(5)
    place.look(5)
    assert place.used() == {("acme", "billing"): 15, ("globex", "pricing"): 15}


def test_an_adapter_that_was_away_at_a_look_has_no_time_around_it(place: Place) -> None:
    place.load(A)
    place.look()
    place.parts.server.unload(A)
    place.look(5)
    place.load(A)
    place.look(5)
    place.look(1)
    assert place.used() == {("acme", "billing"): 1}


def test_merged_weights_take_the_whole_of_their_server(place: Place) -> None:
    release = registered(place.parts, tiny_product(place.parts.home / "product", "mail", "acme"), A, A)
    place.parts.merged.serve(exported(place.parts, release))
    place.look()
    place.look(5)
    place.parts.merged.stop()
    place.look(5)
    assert place.used() == {("acme", "mail"): 20}


def test_a_server_that_is_away_holds_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[str]:
        raise Unavailable("vLLM cannot be reached")

    place.load(A)
    place.look()
    with monkeypatch.context() as patched:
        patched.setattr(place.parts.server, "loaded", away)
        place.look(400)
    place.look(400)
    assert place.used() == {}
    place.look(3)
    assert place.used() == {("acme", "billing"): 3}


def test_the_base_and_what_is_no_release_yet_are_nobodys(place: Place) -> None:
    place.load(judged := sha256_bytes(b"judged"))
    place.look()
    place.look(5)
    assert place.used() == {}
    product = tiny_product(place.parts.home / "product", "routing", "acme")
    registered(place.parts, product, place.parts.base.digest, judged)
    place.look(5)
    assert place.used() == {("acme", "routing"): 5}


def test_it_is_written_every_few_minutes_and_counts_at_that_time(place: Place) -> None:
    place.load(A)
    place.look()
    half = EVERY.total_seconds() / 2
    place.look(half)
    assert place.parts.traces.flush()
    assert place.parts.traces.usage(None, None) == []
    place.look(half)
    now = place.clock()
    assert place.parts.traces.flush()
    (use,) = place.parts.traces.usage(now, None)
    assert use.byte_seconds == GIB * EVERY.total_seconds()
    assert place.parts.traces.usage(None, now) == []
