"""Routes, registry alias and loaded adapters follow the audit log, whatever crashed or was changed by hand."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Refused, Unavailable
from data_contracts.manifests import BaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import challenging, project, read_routes, routes_file
from resources.adapters import served_name
from tests.support.serving import FakeParts, chain, registered, tiny_product


@pytest.fixture
def parts(tmp_path: Path) -> FakeParts:
    return FakeParts(tmp_path)


@pytest.fixture
def product(tmp_path: Path) -> Product:
    return tiny_product(tmp_path / "product")


def release(parts: FakeParts, product: Product, seed: str) -> Digest:
    return registered(parts, product, parts.base.digest, sha256_bytes(seed.encode()))


def repairs(parts: FakeParts) -> list[tuple[object, object]]:
    events = [record for record in parts.log.records() if record.event == "projection.repaired"]
    return [(record.body["projection"], record.body["found"]) for record in events]


def test_everything_follows_a_promotion_and_a_second_run_finds_nothing_to_do(
    parts: FakeParts, product: Product
) -> None:
    first, second = release(parts, product, "a"), release(parts, product, "b")
    chain(parts, product, first)
    chain(parts, product, second)
    done = reconcile(parts, [product])
    route = read_routes(parts.home).of(product.name)
    assert route is not None
    assert (route.champion, route.previous) == (second, first)
    assert parts.registry.aliases == {(product.name, "champion"): second}
    assert {served_name(sha256_bytes(b"a")), served_name(sha256_bytes(b"b"))} <= set(parts.server.loaded())
    assert len(done) == 6  # two adapters, two states, the alias, the route
    assert reconcile(parts, [product]) == []
    assert repairs(parts) == []


def test_a_rollback_to_the_base_takes_alias_and_route_away(parts: FakeParts, product: Product) -> None:
    chain(parts, product, release(parts, product, "a"))
    reconcile(parts, [product])
    chain(parts, product, None, "rollback.recorded")
    reconcile(parts, [product])
    route = read_routes(parts.home).of(product.name)
    assert route is not None
    assert route.champion is None
    assert parts.registry.aliases == {}
    assert repairs(parts) == []


def test_a_crash_between_alias_and_route_is_not_taken_for_a_foreign_hand(parts: FakeParts, product: Product) -> None:
    first, second = release(parts, product, "a"), release(parts, product, "b")
    chain(parts, product, first)
    reconcile(parts, [product])
    chain(parts, product, second)
    parts.registry.set_alias(product.name, "champion", second)
    reconcile(parts, [product])
    assert repairs(parts) == []


def test_an_alias_moved_by_a_foreign_hand_is_repaired_with_an_alert(parts: FakeParts, product: Product) -> None:
    first, second = release(parts, product, "a"), release(parts, product, "b")
    chain(parts, product, first)
    chain(parts, product, second)
    reconcile(parts, [product])
    parts.registry.set_alias(product.name, "champion", first)
    done = reconcile(parts, [product])
    assert parts.registry.aliases == {(product.name, "champion"): second}
    assert repairs(parts) == [("alias", first)]
    assert any("repaired alias" in line for line in done)


@pytest.mark.parametrize("field", ["champion", "previous", "challenger"])
def test_a_route_edited_by_a_foreign_hand_is_repaired_with_an_alert(
    parts: FakeParts, product: Product, field: str
) -> None:
    chain(parts, product, release(parts, product, "a"))
    reconcile(parts, [product])
    stranger = sha256_bytes(b"never recorded")
    table = json.loads(routes_file(parts.home).read_text())
    table["routes"][0] |= {field: stranger, "lapses": 4e9}
    routes_file(parts.home).write_text(json.dumps(table))
    reconcile(parts, [product])
    assert stranger not in routes_file(parts.home).read_text()
    assert [kind for kind, _ in repairs(parts)] == ["challenger" if field == "challenger" else "routes"]


def test_an_unreadable_route_table_is_rebuilt_with_an_alert(parts: FakeParts, product: Product) -> None:
    live = release(parts, product, "a")
    chain(parts, product, live)
    reconcile(parts, [product])
    routes_file(parts.home).write_text("not json")
    reconcile(parts, [product])
    route = read_routes(parts.home).of(product.name)
    assert route == project(parts.log.records(), [product]).routes[0].model_copy(update={"alias": live})
    assert repairs(parts) == [("routes", "unreadable")]


def test_routes_tell_the_truth_while_the_registry_is_down(parts: FakeParts, product: Product) -> None:
    first, second = release(parts, product, "a"), release(parts, product, "b")
    chain(parts, product, first)
    reconcile(parts, [product])
    chain(parts, product, second)
    parts.registry.down = True
    with pytest.raises(ConnectionError):
        reconcile(parts, [product])
    route = read_routes(parts.home).of(product.name)
    assert route is not None
    assert route.champion == second
    parts.registry.down = False
    reconcile(parts, [product])
    assert parts.registry.aliases == {(product.name, "champion"): second}
    assert repairs(parts) == []


def test_a_champion_that_cannot_be_loaded_is_an_error_and_stays_the_champion(
    parts: FakeParts, product: Product
) -> None:
    live = release(parts, product, "a")
    chain(parts, product, live)
    parts.server.refuses.add(sha256_bytes(b"a"))
    with pytest.raises(Refused, match="another base"):
        reconcile(parts, [product])
    route = read_routes(parts.home).of(product.name)
    assert route is not None
    assert route.champion == live


def test_a_champion_that_cannot_be_verified_is_chained_once_and_so_is_that_it_can_again(
    parts: FakeParts, product: Product
) -> None:
    def said() -> list[tuple[str, object]]:
        return [(r.event, r.body.get("reason")) for r in parts.log.records() if r.event.startswith("champion.")]

    chain(parts, product, release(parts, product, "a"))
    parts.server.refuses.add(sha256_bytes(b"a"))
    for _ in range(3):
        with pytest.raises(Refused, match="another base"):
            reconcile(parts, [product])
    (found,) = said()
    assert found[0] == "champion.unverified"
    assert "another base" in str(found[1])
    parts.server.refuses.clear()
    for _ in range(3):
        reconcile(parts, [product])
    assert [event for event, _ in said()] == ["champion.unverified", "champion.verified"]

    chain(parts, product, release(parts, product, "b"))
    reconcile(parts, [product])
    assert len(said()) == 2, "a champion that is well is not spoken of"


def test_a_champion_is_not_called_unverified_because_the_server_is_away(
    parts: FakeParts, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(base: BaseManifest) -> None:
        raise Unavailable("vLLM does not answer")

    chain(parts, product, release(parts, product, "a"))
    monkeypatch.setattr(parts.server, "ensure_running", away)
    with pytest.raises(Unavailable):
        reconcile(parts, [product])
    assert [r for r in parts.log.records() if r.event.startswith("champion.")] == []


def test_a_challenger_is_routed_only_while_its_canary_runs_and_survives_reconciling(
    parts: FakeParts, product: Product
) -> None:
    candidate = release(parts, product, "a")
    with challenging(parts, product, candidate):
        reconcile(parts, [product])
        route = read_routes(parts.home).of(product.name)
        assert route is not None
        assert route.live_challenger() == candidate
    route = read_routes(parts.home).of(product.name)
    assert route is not None
    assert route.challenger is None
    assert repairs(parts) == []


def test_a_challenger_that_is_approved_while_a_slow_registry_is_asked_stays(
    parts: FakeParts, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = parts.registry.alias
    with ExitStack() as canary:

        def slow(name: str, alias: str) -> Digest | None:
            monkeypatch.setattr(parts.registry, "alias", ask)
            challenger = release(parts, product, "b")
            canary.enter_context(challenging(parts, product, challenger))
            return ask(name, alias)

        monkeypatch.setattr(parts.registry, "alias", slow)
        reconcile(parts, [product])
        route = read_routes(parts.home).of(product.name)
        assert route is not None
        assert route.challenger is not None
    assert repairs(parts) == []


def test_a_challenger_whose_canary_died_lapses(parts: FakeParts, product: Product) -> None:
    candidate = release(parts, product, "a")
    with challenging(parts, product, candidate, seconds=-1):
        reconcile(parts, [product])
        route = read_routes(parts.home).of(product.name)
        assert route is not None
        assert route.challenger is None


def test_a_release_without_approval_cannot_be_a_challenger(parts: FakeParts, product: Product) -> None:
    with pytest.raises(Refused, match="no approval"), challenging(parts, product, sha256_bytes(b"stranger")):
        pass
