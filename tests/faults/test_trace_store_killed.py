"""The trace store dies under load, hangs, and the gateway is killed meanwhile: every answer's trace is there, once."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import httpx
import pytest

from pipelines.recipes.product import ROOT
from pipelines.stages.serve.reconcile import reconcile
from pipelines.stages.serve.tenants import create_key
from resources.traces import SqlTraces, open_traces
from tests.support.gateway import HELLO
from tests.support.ports import free_ports
from tests.support.postgres import PostgresServer, new_database, postgres_server
from tests.support.serving import ANY, FakeParts, chain, registered, tiny_product

CLIENTS = 16
PAUSE_S = 0.02
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Answer(NamedTuple):
    """``began`` is of `time.monotonic`."""

    name: str
    began: float
    seconds: float


class Gateway:
    """A process with 16 clients, each asking again as soon as it was answered."""

    def __init__(self, home: Path, traces: str) -> None:
        self.port = free_ports(1)[0]
        parts, product = FakeParts(home, traces), tiny_product(home / "product")
        chain(parts, product, registered(parts, product, parts.base.digest, ANY))
        reconcile(parts, [product])
        self.key = create_key(home, product.tenant)
        self.command = [sys.executable, "-m", "tests.support.traced_gateway", str(home), traces, str(self.port)]
        self.log = home / "gateway.log"
        self.answers: list[Answer] = []
        self.refused: list[str] = []
        self.stopping = threading.Event()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=log, stderr=log)
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/healthz", timeout=30).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=60) as client:
            while not self.stopping.wait(PAUSE_S):
                began = time.monotonic()
                try:
                    answer = client.post("/v1/chat/completions", json={"model": "billing", "messages": HELLO})
                except httpx.TransportError:
                    continue  # it was killed, and starts again
                if answer.status_code == 200:
                    self.answers.append(Answer(answer.json()["id"], began, time.monotonic() - began))
                else:
                    self.refused.append(answer.text)

    @contextmanager
    def asked(self) -> Iterator[None]:
        clients = [threading.Thread(target=self.ask) for _ in range(CLIENTS)]
        for each in clients:
            each.start()
        try:
            yield
        finally:
            self.stopping.set()
            for each in clients:
                each.join()

    def for_a_while(self, seconds: float) -> tuple[float, float]:
        """So long, and until some more were answered; when that was."""
        began, before = time.monotonic(), len(self.answers)
        time.sleep(seconds)
        while len(self.answers) < before + CLIENTS:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        return began, time.monotonic()

    def p95(self, span: tuple[float, float]) -> float:
        times = [each.seconds for each in self.answers if span[0] <= each.began <= span[1]]
        return quantiles(times, n=20)[-1]


def outage(server: PostgresServer, gateway: Gateway, seconds: float) -> dict[str, tuple[float, float]]:
    """Dead for half of it, hanging for the other half; the gateway is killed in the midst of both. When was what."""
    spans = {"before": gateway.for_a_while(seconds / 5)}
    server.signal(signal.SIGKILL)
    spans["dead"] = gateway.for_a_while(seconds / 4)
    gateway.kill()
    gateway.start()
    spans["dead, after a restart"] = gateway.for_a_while(seconds / 4)
    server.start()
    gateway.for_a_while(1)
    server.signal(signal.SIGSTOP)
    try:
        spans["hanging"] = gateway.for_a_while(seconds / 4)
        gateway.kill()
        gateway.start()
        spans["hanging, after a restart"] = gateway.for_a_while(seconds / 4)
    finally:
        server.signal(signal.SIGCONT)
    return spans


def stored(traces: SqlTraces, wanted: set[str]) -> list[str]:
    """Once all that is wanted is there: the test's own timeout ends a wait in vain."""
    while not wanted <= set(found := [each.trace_id for each in traces.since("billing", LONG_AGO)]):
        time.sleep(0.5)
    return found


@pytest.mark.parametrize("seconds", [10, pytest.param(600, marks=[pytest.mark.drill, pytest.mark.timeout(1500)])])
def test_no_trace_is_lost_and_no_answer_waits(tmp_path: Path, seconds: float) -> None:
    with postgres_server() as server:
        url = new_database(server.url)
        gateway = Gateway(tmp_path, url)
        try:
            with gateway.asked():
                spans = outage(server, gateway, seconds)
            traces = open_traces(url, tmp_path / "unused", tmp_path / "unused")
            answered = [each.name for each in gateway.answers]
            found = stored(traces, set(answered))
            (use,) = traces.usage(None, None)
        finally:
            gateway.kill()
    assert gateway.refused == []
    assert len(set(answered)) == len(answered)
    assert len(set(found)) == len(found) == use.requests
    assert len(set(found) - set(answered)) <= 2 * CLIENTS, "more than the answers that the two kills cut off"
    assert [path.name for path in (tmp_path / "spool").iterdir() if path.suffix == ".unreadable"] == []
    if seconds > 60:
        times = {name: gateway.p95(span) for name, span in spans.items()}
        print(f"\n{len(answered)} answers; p95: {', '.join(f'{name} {1000 * t:.0f} ms' for name, t in times.items())}")
        assert max(times.values()) < 3 * times["before"] + 0.1
