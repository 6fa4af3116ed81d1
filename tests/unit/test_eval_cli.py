"""`assay eval` against a server: what it writes, what it keeps when something breaks, and what it says then."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Unavailable
from evals import chat
from pipelines.cli import app
from pipelines.recipes.product import ROOT
from tests.support.patience import eventually
from tests.support.tiny import CHATML
from tests.unit.test_kept import ANSWER, write_suite

DIGEST = "ab" * 32

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ragas imports deprecated parts of others


class Server(ThreadingHTTPServer):
    """Serves ``m`` and an adapter named by digest; breaks at the ``breaks``-th question; answers the first ``freely``,
    and others once it is ``free``."""

    daemon_threads = True
    breaks = 0
    freely = 1000

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.free = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        told = {"/version": {"version": "9"}, "/v1/models": {"data": [{"id": "m"}, {"id": f"adapter-{DIGEST}"}]}}
        self.answer(200, told[self.path])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:  # one at a time: what comes after a failure was not answered before it
            self.server.asked.append(body)
            broken = len(self.server.asked) == self.server.breaks
            if len(self.server.asked) > self.server.freely:
                self.server.free.wait(60)
            self.answer(500 if broken else 200, {"choices": [{"message": {"content": ANSWER}}]})

    def answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def words(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(chat, "CONCURRENCY", 1)
    write_suite(tmp_path, 8)
    (tmp_path / "chatml.jinja").write_text(CHATML)
    return [
        *("eval", "--suite", str(tmp_path / "suite.yaml"), "--endpoint", server.url, "--name", "m"),
        *("--template", str(tmp_path / "chatml.jinja"), "--out", str(tmp_path / "scores.jsonl")),
    ]


def test_a_server_is_asked_once_and_the_gate_can_read_what_is_written(words, server, tmp_path):
    for _ in range(2):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.exception
    assert len(server.asked) == 8
    assert {body["model"] for body in server.asked} == {"m"}
    assert "small: 8 of 8 answered" in done.output or "must_not_call" in done.output
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert rows[0] == {"suite": "small", "item": "i0", "cluster": "c0", "score": 1.0}
    assert [row["item"] for row in rows] == [f"i{n}" for n in range(8)]


def test_a_server_that_fails_at_an_item_costs_that_item_and_those_after_it(words, server, tmp_path):
    server.breaks = 4
    broken = CliRunner().invoke(app, words)
    assert isinstance(broken.exception, Unavailable)
    assert "status 500" in str(broken.exception)
    assert not (tmp_path / "scores.jsonl").exists()
    before, server.breaks = len(server.asked), 0
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(server.asked) - before == 5


def test_an_interrupted_run_goes_on_where_it_stopped(words, server, tmp_path):
    server.freely = 4
    running = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "pipelines.cli", *words],
        cwd=ROOT,
        env=os.environ,
        stderr=subprocess.PIPE,
    )
    kept = tmp_path / "home" / "answers.sqlite"
    assert eventually(lambda: kept.is_file() and rows_of(kept) == 4, seconds=60)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 130, said
    assert "what was answered is kept" in said
    assert not (tmp_path / "scores.jsonl").exists()
    server.free.set()
    assert CliRunner().invoke(app, words).exit_code == 0
    often = Counter(body["messages"][-1]["content"] for body in server.asked)
    assert len(often) == 8
    assert [often[body["messages"][-1]["content"]] for body in server.asked[:4]] == [1] * 4
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 8


def rows_of(database: Path) -> int:
    with closing(sqlite3.connect(database)) as open_one:
        try:
            return int(open_one.execute("select count(*) from answers").fetchone()[0])
        except sqlite3.OperationalError:  # its table is being made
            return 0


def test_another_seed_asks_again_and_its_scores_are_a_re_run_for_the_gate(words, server, tmp_path):
    scores = [tmp_path / f"{name}.jsonl" for name in ("greedy", "one", "two", "one-again")]
    for path, seed in zip(scores, ("", "11", "12", "11"), strict=True):
        more = ["--temperature", "0.7", "--seed", seed] if seed else []
        assert CliRunner().invoke(app, [*words, "--out", str(path), *more]).exit_code == 0
    assert len(server.asked) == 3 * 8
    assert [{body["temperature"] for body in server.asked[n : n + 8]} for n in (0, 8, 16)] == [{0.0}, {0.7}, {0.7}]
    assert {body["seed"] for body in server.asked[:8]} == {7}
    assert len({body["seed"] for body in server.asked[8:]}) == 16
    policy = tmp_path / "policy.yaml"
    policy.write_text("{noise: {seeds: [11, 12], temperature: 0.7}, criteria: [{kind: superiority, suite: small}]}")
    gate = ["gate", "--candidate", scores[0], "--baseline", scores[0], "--policy", policy]
    done = CliRunner().invoke(app, [*map(str, gate), *(f"--rerun={path}" for path in scores[1:3]), "--json"])
    assert json.loads(done.stdout)["criteria"][0]["noise"] == 0


def test_a_seed_without_a_temperature_is_an_error(words, server):
    done = CliRunner().invoke(app, [*words, "--seed", "11"])
    assert isinstance(done.exception, BadInput)
    assert "--seed decides nothing at temperature 0" in str(done.exception)
    assert server.asked == []


def test_an_adapter_that_is_named_by_its_digest_is_known_by_it(words):
    done = CliRunner().invoke(app, [*words, "--name", f"adapter-{DIGEST}", "--json"])
    (result,) = json.loads(done.stdout)
    assert (result["artifact"], result["engine"]) == (f"sha256:{DIGEST}", "vllm 9")


def test_lm_eval_needs_the_tokenizer_of_a_served_model(words):
    probe = ["eval", "--suite", "general-knowledge", *words[3:]]
    done = CliRunner().invoke(app, [*probe, "--limit", "1"])
    assert isinstance(done.exception, BadInput)
    assert "--tokenizer" in str(done.exception)


def test_a_model_that_is_not_served_is_named_with_those_that_are(words, server):
    done = CliRunner().invoke(app, [*words, "--name", "n"])
    assert isinstance(done.exception, BadInput)
    assert "serves no model 'n': it has adapter-" in str(done.exception)
    assert server.asked == []
