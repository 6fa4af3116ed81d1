"""Tenants' secrets in adapters on one vLLM: asked for all at once, behind one long prefix, while they come and go."""

import random
import time
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

import httpx
import pytest

from data_contracts.chain import live_releases
from data_contracts.manifests import BaseManifest
from pipelines.stages.serve.routes import read_routes
from pipelines.wiring import Line
from resources.vllm_server import VllmServer
from tests.support.secrets import Clients, Desk, Heard, leaks, open_desk
from tests.support.serving import chain

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:mlflow", "ignore::DeprecationWarning")


class Place(NamedTuple):
    line: Line
    desks: tuple[Desk, ...]

    @property
    def secrets(self) -> dict[str, str]:
        return {weights: words for desk in self.desks for weights, words in desk.secrets.items()}

    def promote(self, desk: Desk, release: str) -> float:
        """When it was recorded. The gateway's reconciler does the rest."""
        chain(self.line, desk.product, release)
        return time.monotonic()

    def live(self, desk: Desk) -> str:
        return live_releases(self.line.log.records())[desk.product.name, desk.product.environment]

    def wait_until_routed(self) -> None:
        deadline = time.monotonic() + 60
        while any(
            (route := read_routes(self.line.home).of(desk.product.name)) is None or route.champion is None
            for desk in self.desks
        ):
            assert time.monotonic() < deadline, self.line.supervisor.log_tail("gateway")
            time.sleep(0.05)


@pytest.fixture(scope="module")
def place(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Two tenants with three releases each: two more adapters than the server keeps. This gateway knows no other
    test's products."""
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "products").mkdir()
    line = Line(tiny_line.settings.model_copy(update={"products": folder / "products"}))
    desks = tuple(open_desk(line, tiny_base_manifest, tenant, 3, folder) for tenant in ("acme", "globex"))
    made = Place(line, desks)
    for desk in desks:
        made.promote(desk, desk.releases[0])
    line.supervisor.up(["gateway"], seconds=120)
    made.wait_until_routed()
    yield made
    line.supervisor.stop("gateway")


def cached(line: Line) -> float:
    """Tokens that vLLM took from its prefix cache so far."""
    told = httpx.get(line.server.url().removesuffix("/v1") + "/metrics", trust_env=False, timeout=30).text
    assert 'enable_prefix_caching="True"' in told
    (hits,) = (row for row in told.splitlines() if row.startswith("vllm:prefix_cache_hits_total"))
    return float(hits.rsplit(" ", 1)[1])


def storm(place: Place, seed: int, swaps: int, between: int) -> list[Heard]:
    """What 16 clients heard while releases were replaced in turn and adapters unloaded, each client answered so many
    times ``between``. All is checked."""
    draw, hits = random.Random(seed), cached(place.line)
    changes: list[tuple[Desk, float, str]] = []
    with Clients(place.line, place.desks, seed) as clients:
        for number in range(swaps):
            desk = place.desks[number % 2]
            clients.wait_for_more(between)
            place.line.server.unload(draw.choice([*place.secrets]))
            clients.wait_for_more(between)
            release = draw.choice([each for each in desk.releases if each != place.live(desk)])
            changes.append((desk, place.promote(desk, release), release))
            place.line.server.unload(draw.choice([*place.secrets]))
        clients.wait_for_more(between)
    assert clients.errors == []
    heard = clients.all_heard()
    assert leaks(heard, place.secrets) == []
    for desk in place.desks:
        tenant, name = desk.product.tenant, desk.product.name
        assert {each.status for each in heard if each.product == name and each.tenant != tenant} == {404}
        answers = [each for each in heard if (each.tenant, each.product) == (tenant, name)]
        assert {each.status for each in answers} == {200}
        assert sum(each.adapter in desk.secrets for each in answers) > 0.9 * len(answers), "the base stood in for them"
        mine = [(done, release) for changed, done, release in changes if changed == desk]
        for (done, release), (until, following) in zip(mine, [*mine[1:], (inf, "")], strict=True):
            said = {each.release for each in answers if done < each.began < until}
            assert release in said
            assert said <= {release, following, None}
    assert cached(place.line) - hits > 128 * len(heard), "the shared prefix was not taken from the cache"
    return heard


def test_no_answer_carries_anothers_secret_while_adapters_come_and_go(place: Place) -> None:
    heard = storm(place, seed=1, swaps=2, between=1)
    one, other = (next(each for each in heard if each.adapter in desk.secrets) for desk in place.desks)
    base = next(each for each in heard if each.status == 200 and each.adapter is None)
    crossed = [one._replace(text=other.text), other._replace(text=one.text), base._replace(text=one.text)]
    assert len([line for line in leaks(crossed, place.secrets) if "carries" in line]) == 3, "the check sees no leak"


@pytest.mark.drill
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_swaps_leak_nothing_either(place: Place, seed: int) -> None:
    began = time.monotonic()
    heard = storm(place, seed, swaps=20, between=3)
    told = sum(each.adapter in place.secrets for each in heard)
    print(f"seed {seed}: {len(heard)} answers, {told} told a secret, in {time.monotonic() - began:.0f} s")
