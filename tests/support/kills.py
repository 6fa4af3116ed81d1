"""Parts of a standing installation are killed while clients ask: what the clients saw, and when all was well again."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import httpx
import psutil

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.digests import Digest
from data_contracts.errors import Unavailable
from data_contracts.manifests import ReleaseManifest
from pipelines.stages.serve.routes import read_routes
from pipelines.stages.serve.tenants import create_key
from resources.adapters import served_name
from tests.support.installation import PRODUCT, Installation

CLIENTS = 16
SECONDS = 300
"""Until all must be well again."""
SLACK = 1.0
"""Between a record's time and the moment in which every process sees it, at most."""

Kind = Literal["answered", "fell back", "failed cleanly", "cut", "wrong"]


class Seen(NamedTuple):
    """What one request came to, by wall-clock time; ``detail`` is the error, or the reason of a fallback."""

    began: float
    ended: float
    kind: Kind
    release: Digest | None
    detail: str


class Kill(NamedTuple):
    """``struck`` is wall-clock time; ``answered`` and ``well``: seconds from there until a request that began later was
    answered by the champion, and until every part ran and every projection was what the log says."""

    part: str
    when: str
    struck: float
    answered: float
    well: float
    seen: list[Seen]

    def row(self) -> str:
        in_flight = sum(each.began < self.struck < each.ended for each in self.seen)
        kinds = Counter(each.kind for each in self.seen if each.ended > self.struck)
        counts = " | ".join(str(kinds[kind]) for kind in ("answered", "fell back", "failed cleanly", "cut"))
        return f"| {self.part} | {self.when} | {in_flight} | {counts} | {self.answered:.1f} | {self.well:.1f} |"


HEAD = (
    "| killed | when | in flight | answered | by the base | failed cleanly | cut off | champion, s | all well, s |\n"
    "|-|-|-|-|-|-|-|-|-|"
)


def ask(client: httpx.Client, stream: bool) -> Seen:
    body = {"model": PRODUCT, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "stream": stream}
    began = time.time()
    try:
        answer = client.post("/v1/chat/completions", json=body)
    except httpx.TransportError as error:
        return Seen(began, time.time(), "cut", None, type(error).__name__)
    kind, release, detail = _told(answer, stream)
    return Seen(began, time.time(), kind, release, detail)


def _told(answer: httpx.Response, stream: bool) -> tuple[Kind, Digest | None, str]:
    try:
        if answer.status_code != 200:
            error = answer.json()["error"]
            return ("failed cleanly" if answer.status_code in (502, 503) else "wrong"), None, str(error["code"])
        if not stream:
            said = answer.json()["assay"]
        else:
            events = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
            said = json.loads(events[0])["assay"]
            if events[-1] != "[DONE]":
                return "failed cleanly", None, str(json.loads(events[-1])["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return "wrong", None, answer.text[-300:]
    return ("answered" if said["release"] else "fell back"), said["release"], said["reason"]


class Clients:
    """Ask the gateway without pause, every other one streaming."""

    def __init__(self, url: str, key: str) -> None:
        self.seen: list[Seen] = []
        self._url, self._headers = url, {"authorization": f"Bearer {key}"}
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = CLIENTS) -> None:
        wanted = len(self.seen) + count
        until(lambda: len(self.seen) >= wanted, "clients were answered")

    def _run(self, stream: bool) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=300, trust_env=False) as client:
            while not self._stopping.is_set():
                seen = ask(client, stream)
                self.seen.append(seen)
                if seen.kind != "answered":
                    time.sleep(0.2)


class Standing:
    """An installation all of whose parts run, with a live release."""

    def __init__(self, installation: Installation) -> None:
        self.installation, self.line = installation, installation.line()
        self.product = self.line.product(PRODUCT)
        self.key = create_key(self.line.home, self.product.tenant)

    def records(self) -> list[AuditRecord]:
        return self.line.log.records()

    def champion(self) -> Digest | None:
        return live_releases(self.records()).get((self.product.name, self.product.environment))

    def adapter(self, release: Digest) -> Digest:
        return self.line.store.get_manifest(release, ReleaseManifest).weights

    def clients(self) -> Clients:
        return Clients(self.line.gateway_url, self.key)

    def processes(self, part: str) -> list[psutil.Process]:
        """The leading one, whose children are left behind; ``daemon`` is Dagster's."""
        pid = self.line.supervisor.pid("dagster" if part == "daemon" else part)
        if pid is None:
            return []
        leader = psutil.Process(pid)
        if part != "daemon":
            return [leader]
        return [child for child in leader.children() if "dagster._daemon" in child.cmdline()]

    def kill(self, part: str, when: str, swap: Callable[[], None] = lambda: None) -> Kill:
        """Under load, in the midst of ``swap`` if there is one; returns when all is well again, or fails."""
        with self.clients() as clients:
            clients.wait_for_more()
            until(lambda: self.runs(part), f"{part} ran")  # the one before may have taken it along
            (victim,) = self.processes(part)
            swap()
            victim.kill()
            struck = time.time()
            until(
                lambda: self.is_well() and self.runs_again(part, victim),
                f"{part} was back, and all that serves what the log says",
            )
            well = time.time()
            clients.wait_for_more()
        after = [each for each in clients.seen if each.began > struck and each.release == self.champion() is not None]
        answered = min(each.ended for each in after) - struck
        return Kill(part, when, struck, answered, well - struck, clients.seen)

    def runs(self, part: str) -> bool:
        try:
            return bool(self.processes(part))
        except psutil.NoSuchProcess:
            return False

    def runs_again(self, part: str, victim: psutil.Process) -> bool:
        try:
            return bool(self.processes(part)) and victim not in self.processes(part)
        except psutil.NoSuchProcess:
            return False

    def is_well(self) -> bool:
        """Every part runs and is healthy, and what serves is what the log says: the route, the registry's alias, the
        loaded adapter."""
        if any((each.state, each.healthy) != ("RUNNING", True) for each in self.line.supervisor.status()):
            return False
        champion = self.champion()
        route = read_routes(self.line.home).of(self.product.name)
        if route is None or not champion == route.champion == self.line.registry.alias(self.product.name, "champion"):
            return False
        try:
            return champion is None or served_name(self.adapter(champion)) in self.line.server.loaded()
        except Unavailable:
            return False

    def wrong(self, seen: Sequence[Seen]) -> list[Seen]:
        """Answers that are neither whole and of a release that was champion meanwhile, nor an error that says so."""
        return [each for each in seen if each.kind == "wrong" or not self._may_say(each)]

    def _may_say(self, seen: Seen) -> bool:
        if seen.kind == "fell back":
            return "could not answer" in seen.detail
        if seen.release is None:
            return True
        moves = [record for record in self.records() if record.event in ("promotion.recorded", "rollback.recorded")]
        before = [each for each in moves if each.time.timestamp() < seen.began - SLACK][-1:]
        during = [each for each in moves if seen.began - SLACK <= each.time.timestamp() <= seen.ended]
        return seen.release in {each.body["release"] for each in before + during}


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline, f"{SECONDS} seconds went by before {what}"
        time.sleep(0.05)
