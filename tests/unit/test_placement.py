"""Which adapters are loaded ahead of requests: pinned ones whatever leaves for them, others into free slots."""

from pathlib import Path

import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Refused
from pipelines.recipes.product import Product
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import read_routes
from tests.support.serving import FakeParts, chain, registered, tiny_product


@pytest.fixture
def parts(tmp_path: Path) -> FakeParts:
    return FakeParts(tmp_path)


def live(parts: FakeParts, name: str, placement: str = "dynamic", *seeds: str) -> Product:
    """A product with releases of these adapters, the last one live; by default of one that is called as it is."""
    product = tiny_product(parts.home / "product", name)
    product = product.model_copy(update={"serving": product.serving.model_copy(update={"placement": placement})})
    for seed in seeds or (name,):
        chain(parts, product, registered(parts, product, parts.base.digest, weights(seed)))
    return product


def weights(seed: str) -> Digest:
    return sha256_bytes(seed.encode())


def loaded(parts: FakeParts) -> set[str]:
    return set(parts.server.loaded()) - {parts.server.base_name()}


def names(parts: FakeParts, *seeds: str) -> set[str]:
    return {parts.server.name_of(weights(seed)) for seed in seeds}


def test_others_are_loaded_while_slots_are_free_and_push_nobody_out(parts: FakeParts) -> None:
    parts.server.residents = 3
    products = [live(parts, name) for name in ("ant", "bee", "cat", "dog")]
    reconcile(parts, products)
    assert loaded(parts) == names(parts, "ant", "bee", "cat")
    parts.server.unload(weights("ant"))
    parts.server.ensure_loaded(weights("dog"))
    assert reconcile(parts, products) == [], "what a request loaded stays"
    parts.server.unload(weights("bee"))
    reconcile(parts, products)
    assert loaded(parts) == names(parts, "ant", "cat", "dog")


def test_champions_come_before_releases_to_roll_back_to(parts: FakeParts) -> None:
    parts.server.residents = 3
    reconcile(parts, [live(parts, "ant", "dynamic", "a1", "a2"), live(parts, "bee", "dynamic", "b1", "b2")])
    assert loaded(parts) == names(parts, "a2", "b2", "a1")


def test_a_pinned_champion_is_loaded_though_no_slot_is_free(parts: FakeParts) -> None:
    parts.server.residents = 2
    others = [live(parts, name) for name in ("ant", "bee")]
    reconcile(parts, others)
    reconcile(parts, [*others, live(parts, "zoo", "pinned")])
    assert parts.server.pins == {"zoo": weights("zoo")}
    assert names(parts, "zoo") <= loaded(parts)


def test_a_pin_follows_promotion_rollback_and_the_product_file(parts: FakeParts) -> None:
    product = live(parts, "ant", "pinned", "a1", "a2")
    reconcile(parts, [product])
    assert parts.server.pins == {"ant": weights("a2")}
    first = read_routes(parts.home).routes[0].previous
    chain(parts, product, first, "rollback.recorded")
    reconcile(parts, [product])
    assert parts.server.pins == {"ant": weights("a1")}
    other = live(parts, "bee", "pinned")
    reconcile(parts, [other])
    assert parts.server.pins == {"ant": weights("a1"), "bee": weights("bee")}, (
        "one product's promotion leaves the others"
    )
    serving = product.serving.model_copy(update={"placement": "dynamic"})
    reconcile(parts, [product.model_copy(update={"serving": serving}), other])
    assert parts.server.pins == {"bee": weights("bee")}


def test_more_pinned_than_slots_is_an_error_that_names_them_and_all_are_served(parts: FakeParts) -> None:
    parts.server.residents = 3
    products = [live(parts, name, "pinned") for name in ("ant", "bee", "cat")]
    with pytest.raises(
        Refused, match=r"ant, bee, cat are to be pinned, and 2 adapters can be: raise ASSAY_SERVE_SLOTS"
    ):
        reconcile(parts, products)
    assert loaded(parts) == names(parts, "ant", "bee", "cat")
    assert {route.product for route in read_routes(parts.home).routes if route.champion} == {"ant", "bee", "cat"}


def test_nothing_takes_the_slot_of_a_pinned_champion_that_cannot_be_loaded(parts: FakeParts) -> None:
    parts.server.residents = 2
    parts.server.refuses.add(weights("zoo"))
    products = [*(live(parts, name) for name in ("ant", "bee")), live(parts, "zoo", "pinned")]
    with pytest.raises(Refused, match="another base"):
        reconcile(parts, products)
    assert loaded(parts) == names(parts, "ant")
