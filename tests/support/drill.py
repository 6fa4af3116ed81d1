"""An erasure in a running installation: clients ask all the while, it is killed, and then everything is looked at."""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from data_contracts.chain import AuditRecord, live_releases
from data_contracts.errors import Refused
from data_contracts.manifests import ReleaseManifest
from data_contracts.verdicts import ErasureReceipt
from pipelines.recipes.product import ROOT
from pipelines.stages.data.ingest import pseudonym
from pipelines.stages.release.promotion import promote
from pipelines.stages.serve.routes import read_routes
from pipelines.stages.serve.tenants import create_key
from pipelines.stages.signals.erasure_receipts import listed
from resources.adapters import served_name
from tests.support.installation import Installation
from tests.support.search import own_texts, traces_of

REASON = "request 2026-118"
_STAY = ("run", "logs", "serve")
"""What a home that is set back keeps: the supervisor and the model server run on."""


class Answer(NamedTuple):
    """``began`` is wall-clock time; ``status`` is 0 where nobody answered."""

    began: float
    status: int
    release: str | None


class Clients:
    """Two clients that ask the gateway without pause, one of them streaming."""

    def __init__(self, drill: "Drill") -> None:
        self.drill = drill
        self.answers: list[Answer] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(stream,)) for stream in (False, True)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 4) -> None:
        wanted, deadline = len(self.answers) + count, time.monotonic() + 120
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, self.answers[-3:]
            time.sleep(0.02)

    def _ask(self, stream: bool) -> None:
        while not self._stopping.is_set():
            self.answers.append(self.drill.ask(stream))


class Killed(NamedTuple):
    """``after`` seconds of work; ``event`` is the last audit record that was there."""

    after: float
    event: str
    with_gateway: bool


class Drill:
    """A person to be erased from an installation whose live release learned from its rows. Its gateway and model server
    run; ``keep`` is a folder for a copy of the home."""

    def __init__(self, installation: Installation, product: str, person: str, keep: Path) -> None:
        self.installation, self.person, self.keep = installation, person, keep
        self.line = line = installation.line()
        self.product = line.product(product)
        self.subject = pseudonym(line, person)
        live = self.live()
        assert live is not None, "nothing is live: there is nothing to take off a route"
        self.tainted = live
        self.texts = [person, *own_texts(line, self.subject)]
        self.held_before = traces_of(line.home, *self.texts)
        self.key = create_key(line.home, self.product.tenant)
        for child in self._movable():
            (shutil.copytree if child.is_dir() else shutil.copy2)(child, _made(keep) / child.name)

    def live(self) -> str | None:
        return live_releases(self.records()).get((self.product.name, self.product.environment))

    def records(self) -> list[AuditRecord]:
        return self.line.log.records()

    def ask(self, stream: bool = False) -> Answer:
        began = time.time()
        body = {"model": self.product.name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            answer = httpx.post(
                f"{self.line.gateway_url}/v1/chat/completions",
                json=body | {"stream": stream},
                headers=headers,
                trust_env=False,
                timeout=300,
            )
        except httpx.TransportError:
            time.sleep(0.05)
            return Answer(began, 0, None)
        whole = not stream or answer.text.rstrip().endswith("[DONE]")
        return Answer(began, answer.status_code if whole else 0, answer.headers.get("x-assay-release"))

    def set_back(self) -> None:
        """Everything as it was before the erasure, and the live release answers again."""
        self.line.supervisor.stop("gateway")
        for child in self._movable():
            shutil.rmtree(child) if child.is_dir() else child.unlink()
        shutil.copytree(self.keep, self.line.home, dirs_exist_ok=True)
        self.line = self.installation.line()
        self.line.supervisor.up(["gateway"], seconds=120)
        assert self.ask().release == self.tainted

    def erase(self) -> float:
        """By the command, to its end; seconds from when it began its work."""
        process = self._erasing()
        began = time.monotonic()
        told, _ = process.communicate(timeout=300)
        assert process.returncode == 0, told
        return time.monotonic() - began

    def erase_killed(self, after: float, with_gateway: bool) -> Killed:
        process = self._erasing()
        time.sleep(after)
        process.kill()
        gateway = self.line.supervisor.pid("gateway")
        if with_gateway and gateway is not None:
            os.kill(gateway, signal.SIGKILL)
        process.communicate()
        return Killed(after, self.records()[-1].event, with_gateway)

    def finish(self) -> None:
        """As after a crash: resumed where it was begun, else asked for again."""
        begun = any(record.event == "erasure.begun" for record in self.records())
        self.installation.assay("erase", *(["--resume"] if begun else ["--subject", self.person, "--reason", REASON]))

    def check(self, fallback: str | None, answers: list[Answer], unanswered: bool = False) -> ErasureReceipt:
        """Nothing is left of the person anywhere, nothing that learned from its rows answers or can come back, every
        request was answered by who was live, and the receipt says so."""
        assert traces_of(self.line.home, *self.texts) == []
        records = self.records()
        for event in ("erasure.begun", "erasure.completed"):
            assert [record.event for record in records].count(event) == 1
        assert unanswered or [answer for answer in answers if answer.status != 200] == []
        revoked = {str(r.body["release"]): r.time.timestamp() for r in records if r.event == "release.revoked"}
        late = [a for a in answers if a.release in revoked and a.began > revoked[a.release] + 1]
        assert late == []
        assert {answer.release for answer in answers if answer.status == 200} <= {self.tainted, fallback or "none"}
        assert self.ask().release == self.ask(stream=True).release == (fallback or "none")

        assert self.live() == fallback == self.line.registry.alias(self.product.name, "champion")
        route = read_routes(self.line.home).of(self.product.name)
        assert route is not None
        assert (route.champion, route.live_challenger()) == (fallback, None)
        weights = {self.line.store.get_manifest(each, ReleaseManifest).weights for each in revoked}
        assert not {served_name(each) for each in weights} & {*self.line.server.loaded()}
        with pytest.raises(Refused, match="revoked"):
            promote(self.line, self.product, self.tainted, lambda *_: ("", ""))

        (found,) = listed(self.line)
        assert (found.subject, found.state) == (self.subject, "erased")
        assert found.receipt is not None
        receipt = self.line.store.get_manifest(found.receipt, ErasureReceipt)
        assert receipt.releases == tuple(sorted(revoked))
        assert [(each.release, each.fallback) for each in receipt.routes] == [(self.tainted, fallback)]
        assert [each.product for each in receipt.retraining] == [self.product.name]
        assert "not unlearning" in receipt.not_proved[0]
        links = json.loads(self.installation.assay("verify", self.tainted, "--json"))["links"]
        assert {link["status"] for link in links} == {"ok", "erased"}
        return receipt

    def _erasing(self) -> "subprocess.Popen[str]":
        """The command, at the moment in which it takes its lock."""
        process = subprocess.Popen(
            self.installation.command("erase", "--subject", "-", "--reason", REASON),
            cwd=ROOT,
            env=self.installation.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(self.person + "\n")
        process.stdin.flush()
        lock = self.line.home / "locks" / "erasure.lock"
        while not lock.exists() and process.poll() is None:
            time.sleep(0.001)
        return process

    def _movable(self) -> list[Path]:
        return [child for child in self.line.home.iterdir() if child.name not in _STAY]


def killed_rounds(
    drill: Drill, fallback: str | None, rounds: int, seconds: float, seed: int
) -> list[tuple[Killed, float]]:
    """The erasure from the start, ``rounds`` times: killed at a moment drawn from its part of ``seconds``, every other
    time with the gateway, and finished. Each kill with the seconds that finishing took."""
    draw = random.Random(seed)
    done = []
    for number in range(rounds):
        drill.set_back()
        with Clients(drill) as clients:
            clients.wait_for_more()
            killed = drill.erase_killed(seconds * (number + draw.random()) / rounds, with_gateway=number % 2 == 1)
            began = time.monotonic()
            drill.finish()
            finished = time.monotonic() - began
            clients.wait_for_more()
        drill.check(fallback, clients.answers, unanswered=killed.with_gateway)
        done.append((killed, finished))
    return done


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
