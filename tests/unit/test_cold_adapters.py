"""Requests for adapters that are not loaded: they wait in a bounded queue, and for nobody but each other."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from data_contracts.digests import Digest, sha256_bytes
from pipelines.stages.serve import loading
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.routes import challenging
from pipelines.stages.serve.tenants import create_key
from pipelines.stages.serve.upstream import LOADS
from tests.support.dashboards import exported
from tests.support.gateway import Installation, installed
from tests.support.serving import chain, registered

A, B = sha256_bytes(b"a"), sha256_bytes(b"b")


def cold(home: Installation, seed: str = "a") -> Digest:
    """A live release whose adapter nobody loaded."""
    live = home.release(seed)
    chain(home.parts, home.product, live)
    return live


@contextmanager
def loads_held(home: Installation) -> Iterator[ThreadPoolExecutor]:
    """While the block runs, no load ends."""
    home.parts.server.may_load.clear()
    with ThreadPoolExecutor(8) as pool:
        try:
            yield pool
        finally:
            home.parts.server.may_load.set()


def waiting(home: Installation, count: int) -> None:
    deadline = time.monotonic() + 60
    while (found := home.load()["cold"]) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


def releases(answers: list[Future[httpx.Response]]) -> set[str]:
    return {answer.result().headers["x-assay-release"] for answer in answers}


def test_an_adapter_is_loaded_once_for_all_who_wait_for_it(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        live = cold(home)
        with loads_held(home) as pool:
            answers = [pool.submit(home.ask, stream=number % 2 == 0) for number in range(6)]
            waiting(home, 6)
        assert releases(answers) == {live}
        assert home.parts.server.loads == [A]
        waiting(home, 0)


def test_requests_for_loaded_adapters_and_the_base_do_not_wait_for_a_load(tmp_path: Path) -> None:
    """Not even the first one that this gateway hears of."""
    with installed(tmp_path) as home:
        live, globex = cold(home), home.of(create_key(home.parts.home, "globex"))
        other = registered(home.parts, home.other, home.parts.base.digest, B)
        with loads_held(home) as pool:
            slow = pool.submit(home.ask)
            waiting(home, 1)
            assert home.ask(globex, model="pricing").headers["x-assay-route"] == "base"
            chain(home.parts, home.other, other)
            home.parts.server.names.add(home.parts.server.name_of(B))
            for _ in range(3):
                assert home.ask(globex, model="pricing").headers["x-assay-release"] == other
            assert not slow.done()
        assert releases([slow]) == {live}


def test_adapters_are_loaded_one_after_another(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        cold(home)
        chain(home.parts, home.other, registered(home.parts, home.other, home.parts.base.digest, B))
        globex = home.of(create_key(home.parts.home, "globex"))
        with loads_held(home) as pool:
            answers = [pool.submit(home.ask), pool.submit(home.ask, globex, model="pricing")]
            waiting(home, 2)
        assert [answer.result().status_code for answer in answers] == [200, 200]
        assert (set(home.parts.server.loads), home.parts.server.most_loading) == ({A, B}, 1)


def test_who_waits_is_bounded_and_the_canary_waits_whoever_else_does(tmp_path: Path) -> None:
    with installed(tmp_path, "gateway: {cold_queue: 1}") as home:
        live, rival = cold(home), home.release("b")
        with challenging(home.parts, home.product, rival), loads_held(home) as pool:
            first = pool.submit(home.ask)
            waiting(home, 1)
            answer = home.ask()
            assert (answer.status_code, answer.headers["x-assay-limit"]) == (429, "cold_queue")
            assert (answer.headers["retry-after"], answer.json()["error"]["code"]) == ("5", "overloaded")
            probe = pool.submit(home.ask, home.operator, headers={"x-assay-challenger": rival})
            waiting(home, 2)
        assert releases([first, probe]) == {live, rival}
        assert home.load()["tenants"]["acme"]["refused"] == {"cold_queue": 1}
        assert home.load()["in_flight"] == 0
        home.parts.traces.flush()
        assert {trace.status for trace in home.parts.traces.recent("billing", 99)} == {200}


def test_nobody_waits_for_an_adapter_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "WAIT_SECONDS", 0.05)
    with installed(tmp_path) as home:
        live = cold(home)
        with loads_held(home):
            answer = home.ask()
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            waiting(home, 0)
        monkeypatch.undo()
        assert home.ask().headers["x-assay-release"] == live


def test_an_adapter_that_was_pushed_out_before_its_request_came_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(tmp_path, base_as_fallback=False) as home:
        live, server = cold(home), home.parts.server
        load, late = server.ensure_loaded, LOADS - 1

        def pushed_out(weights: Digest) -> str:
            name: str = load(weights)
            if len(server.loads) <= late:
                server.unload(weights)
            return name

        monkeypatch.setattr(server, "ensure_loaded", pushed_out)
        assert home.ask().headers["x-assay-release"] == live
        server.unload(A)
        late = 99
        assert home.ask().status_code == 503
        assert len(server.loads) == 2 * LOADS


def test_loads_and_waits_are_counted(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        home.promote("b")
        home.ask()
        assert "assay_adapter_loads_total" not in exported(home.scraped())
        cold(home)
        with loads_held(home) as pool:
            answers = [pool.submit(home.ask) for _ in range(2)]
            waiting(home, 2)
            assert "assay_requests_cold 2.0" in home.scraped()
        assert len(releases(answers)) == 1
        home.parts.server.refuses.add(A)
        home.parts.server.unload(A)
        home.ask()
        text = home.scraped()
        for line in (
            'assay_adapter_loads_total{outcome="loaded",product="billing"} 1.0',
            'assay_adapter_loads_total{outcome="failed",product="billing"} 1.0',
            'assay_adapter_load_seconds_count{product="billing"} 1.0',
            'assay_cold_wait_seconds_count{product="billing"} 3.0',
        ):
            assert line in text


def test_the_reconciler_fills_what_is_free_and_leaves_the_rest_to_requests(tmp_path: Path) -> None:
    with installed(tmp_path) as home:
        home.parts.server.residents = 1
        home.promote("b")
        live = cold(home)
        reconcile(home.parts, [home.product, home.other])
        assert home.parts.server.loads == [B]
        assert home.ask().headers["x-assay-release"] == live
        assert home.parts.server.loads == [B, A]
