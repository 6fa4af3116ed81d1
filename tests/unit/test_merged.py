"""Merged weights with a server of their own: which are served, what the gateway asks them for, and who answers while
they do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.digests import Digest, sha256_bytes
from data_contracts.errors import Refused
from data_contracts.manifests import ExportManifest
from evals.answers import words
from pipelines.recipes.product import Product
from pipelines.stages.serve.breaker import FAILURES, REST
from pipelines.stages.serve.merged import place_merged
from resources.adapters import served_name
from tests.support.gateway import Clock, Installation, installed
from tests.support.serving import FakeParts, chain, exported, fake_vllm, merged_name, registered, tiny_product

A = sha256_bytes(b"a")


@pytest.fixture
def parts(tmp_path: Path) -> FakeParts:
    return FakeParts(tmp_path)


def product_of(parts: FakeParts, name: str = "bills", placement: str = "merged") -> Product:
    product = tiny_product(parts.home / "product", name)
    return product.model_copy(update={"serving": product.serving.model_copy(update={"placement": placement})})


def release_of(parts: FakeParts, product: Product, seed: str) -> Digest:
    return registered(parts, product, parts.base.digest, sha256_bytes(seed.encode()))


def test_the_live_release_is_served_and_the_next_one_in_its_place(parts: FakeParts) -> None:
    product = product_of(parts)
    first, second = (release_of(parts, product, seed) for seed in ("a", "b"))
    exports = [exported(parts, release) for release in (first, second)]
    assert place_merged(parts, [product]) == [], "none is live yet"
    chain(parts, product, first)
    assert place_merged(parts, [product]) == [f"bills answers from merged weights: export {exports[0].digest}"]
    assert place_merged(parts, [product]) == []
    chain(parts, product, second)
    place_merged(parts, [product])
    chain(parts, product, first, "rollback.recorded")
    place_merged(parts, [product])
    assert parts.merged.served == [first, second, first]
    assert place_merged(parts, [product_of(parts, placement="dynamic")]) == ["stopped the server of merged weights"]
    assert not parts.merged.running()


def test_a_live_release_that_was_not_exported_says_how_to_and_ends_the_one_before(parts: FakeParts) -> None:
    product = product_of(parts)
    first, second = (release_of(parts, product, seed) for seed in ("a", "b"))
    exported(parts, first)
    chain(parts, product, first)
    place_merged(parts, [product])
    chain(parts, product, second)
    with pytest.raises(Refused, match=f"assay export {second} --format merged --out FOLDER"):
        place_merged(parts, [product])
    assert not parts.merged.running()


def test_weights_of_a_shredded_tenant_are_not_served(parts: FakeParts) -> None:
    product = product_of(parts)
    release = release_of(parts, product, "a")
    exported(parts, release)
    chain(parts, product, release)
    place_merged(parts, [product])
    parts.tenant_keys.destroy(product.tenant)
    parts.merged.stop()
    with pytest.raises(Refused, match="has no merged export in the store"):
        place_merged(parts, [product])


def test_there_is_one_server_of_merged_weights(parts: FakeParts) -> None:
    products = [product_of(parts, name) for name in ("ant", "bee")]
    with pytest.raises(Refused, match="ant, bee have placement: merged"):
        place_merged(parts, products)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def home(tmp_path: Path, clock: Clock) -> Iterator[Installation]:
    with installed(tmp_path, clock=clock) as found, fake_vllm(found.parts.merged.server):
        yield found


@pytest.fixture
def export(home: Installation) -> ExportManifest:
    """Of a live release, and served."""
    found = exported(home.parts, home.promote("a"))
    home.parts.merged.serve(found)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_from_merged_weights_says_so(home: Installation, export: ExportManifest, stream: bool) -> None:
    answer = home.ask(stream=stream)
    assert answer.headers["x-assay-export"] == export.digest
    assert answer.headers["x-assay-release"] == export.release
    assert answer.headers["x-assay-adapter"] == A, "what was merged"
    trace = home.trace(answer.headers["x-assay-trace-id"])
    assert (trace.release, trace.adapter, trace.export) == (export.release, A, export.digest)
    if not stream:
        assert answer.json()["choices"][0]["message"]["content"] == words(merged_name(export))
        assert answer.json()["assay"]["export"] == export.digest
    assert home.parts.server.asked == [], "no adapter was asked"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["fails", "holds others", "is gone"])
def test_the_release_answers_as_an_adapter_while_its_merged_weights_do_not(
    home: Installation, export: ExportManifest, how: str, stream: bool
) -> None:
    server = home.parts.merged.server
    if how == "fails":
        server.broken.add(merged_name(export))
    elif how == "holds others":
        server.names = {"merged-other"}
    else:
        server.port = 9
    answer = home.ask(stream=stream)
    assert answer.status_code == 200
    assert (answer.headers["x-assay-route"], answer.headers["x-assay-export"]) == ("champion", "none")
    trace = home.trace(answer.headers["x-assay-trace-id"])
    assert (trace.release, trace.export, trace.failed) == (export.release, None, ())
    assert home.parts.server.asked[-1]["model"] == served_name(A)


def test_merged_weights_that_keep_failing_rest(home: Installation, export: ExportManifest, clock: Clock) -> None:
    server = home.parts.merged.server
    server.broken.add(merged_name(export))
    for _ in range(FAILURES + 2):
        assert home.ask().status_code == 200
    assert len(server.asked) == FAILURES
    assert home.load()["resting"] == [export.digest]
    server.broken.clear()
    clock.forward(REST.total_seconds())
    assert home.ask().headers["x-assay-export"] == export.digest
    assert home.load()["resting"] == []


def test_the_release_that_is_live_next_does_not_answer_from_the_weights_of_the_last(
    home: Installation, export: ExportManifest
) -> None:
    live = home.promote("b")
    answer = home.ask()
    assert (answer.headers["x-assay-release"], answer.headers["x-assay-export"]) == (live, "none")
