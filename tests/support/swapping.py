"""Clients of a standing gateway that ask without pause while its releases are exchanged."""

import json
import threading
import time
from typing import NamedTuple

import httpx

from data_contracts.digests import Digest
from pipelines.recipes.product import Product
from pipelines.stages.serve.routes import read_routes
from pipelines.wiring import Line
from tests.support.serving import chain

QUESTION = [{"role": "user", "content": "where is my invoice?"}]


class Seen(NamedTuple):
    began: float
    ended: float
    release: Digest | None
    text: str


class Gateway(NamedTuple):
    line: Line
    product: Product
    client: httpx.Client
    releases: tuple[Digest, Digest]

    def ask(self, stream: bool = False) -> Seen:
        began = time.monotonic()
        body = {"model": self.product.name, "messages": QUESTION, "max_tokens": 12, "stream": stream}
        answer = self.client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        if not stream:
            whole = answer.json()
            return Seen(began, time.monotonic(), whole["assay"]["release"], whole["choices"][0]["message"]["content"])
        events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        assert events[-1] == "[DONE]", answer.text[-300:]
        chunks = [json.loads(event) for event in events[:-1]]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        return Seen(began, time.monotonic(), chunks[0]["assay"]["release"], text)

    def promote(self, release: Digest | None, event: str = "promotion.recorded") -> None:
        """Only the log is written: the gateway's reconciler does the rest."""
        chain(self.line, self.product, release, event)
        deadline = time.monotonic() + 60
        while (route := read_routes(self.line.home).of(self.product.name)) is None or route.champion != release:
            assert time.monotonic() < deadline, self.line.supervisor.log_tail("gateway")
            time.sleep(0.05)


class Traffic:
    """Four clients that ask without pause, two of them streaming."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.seen: list[list[Seen]] = [[] for _ in range(4)]
        self.errors: list[BaseException] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(4)]
        for thread in self.threads:
            thread.start()

    def _ask(self, number: int) -> None:
        while not self.stopping.is_set():
            try:
                self.seen[number].append(self.gateway.ask(stream=number % 2 == 0))
            except BaseException as error:
                self.errors.append(error)
                return

    def wait_for_more(self, each: int = 4) -> None:
        counts = [len(seen) for seen in self.seen]
        deadline = time.monotonic() + 120
        while any(len(seen) < count + each for seen, count in zip(self.seen, counts, strict=True)):
            assert not self.errors, self.errors
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()
