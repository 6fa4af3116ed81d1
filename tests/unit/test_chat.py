"""Asking many questions: all are answered, or the error names one that was not."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_contracts.errors import BadInput, Unavailable
from evals import chat


class Server(ThreadingHTTPServer):
    """Answers ``echo ITEM``; hangs up on the first try of "shaky", has status 500 for "broken"."""

    daemon_threads = True
    seen: Counter[str]
    key = ""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        cards = json.dumps({"data": [{"id": "echo", "root": "there"}]}).encode()
        self.answer(404 if self.path != "/v1/models" else 200, cards)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        item = asked["item"]
        self.server.seen[item] += 1
        if item == "shaky" and self.server.seen[item] == 1:
            self.connection.close()
            return
        choice = {"message": {"content": f"echo {item}"}, "logprobs": None}
        if asked.get("logprobs") and item != "silent":
            choice["logprobs"] = {"content": [{"token": "echo", "logprob": -0.25}, {"token": item, "logprob": -1.0}]}
        body = json.dumps({"choices": [choice]}).encode()
        self.answer(500 if item == "broken" else 200, body)

    def answer(self, status: int, body: bytes) -> None:
        allowed = not self.server.key or self.headers["authorization"] == f"Bearer {self.server.key}"
        self.send_response(status if allowed else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.seen = Counter()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server: Server, *items: str) -> dict[str, str]:
    texts: dict[str, str] = {}
    chat.ask_all(address(server), {item: {"item": item} for item in items}, texts.__setitem__)
    return texts


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def test_every_question_gets_its_own_answer(server):
    items = [f"i{n}" for n in range(50)]
    assert ask(server, *items) == {item: f"echo {item}" for item in items}


def test_a_lost_connection_is_tried_again(server, monkeypatch):
    monkeypatch.setattr(chat, "WAIT_S", 0.01)
    assert ask(server, "shaky", "calm") == {"shaky": "echo shaky", "calm": "echo calm"}
    assert server.seen["shaky"] == 2


def test_an_error_answer_stops_the_run_and_names_the_item(server):
    with pytest.raises(Unavailable, match="item broken with status 500"):
        ask(server, "calm", "broken")
    assert server.seen["broken"] == 1


def test_a_server_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(chat, "WAIT_S", 0.01)
    with pytest.raises(Unavailable, match="item a in 4 tries"):
        chat.ask_all("http://127.0.0.1:9/v1", {"a": {}}, lambda item, text: None)
    for look in (lambda: chat.engine("http://127.0.0.1:9/v1"), chat.Endpoint("http://127.0.0.1:9/v1", "m").card):
        with pytest.raises(Unavailable, match="no model server answers at"):
            look()


def test_a_model_that_the_server_does_not_know_is_an_error_with_those_it_knows(server):
    assert chat.Endpoint(address(server), "echo").card() == {"id": "echo", "root": "there"}
    with pytest.raises(BadInput, match="serves no model 'ehco': it has echo"):
        chat.Endpoint(address(server), "ehco").card()


def test_a_server_without_a_version_is_named_by_its_address(server):
    assert chat.Endpoint(address(server), "echo").engine() == f"server at {address(server)}"


def test_the_key_goes_with_every_request(server):
    server.key = "secret"
    with pytest.raises(Unavailable, match="status 401"):
        ask(server, "calm")
    endpoint = chat.Endpoint(address(server), "echo", key="secret")
    assert said_by(endpoint, "calm") == {"calm": ("echo calm", None)}
    assert endpoint.card()["id"] == "echo"


def said_by(endpoint: chat.Endpoint, *items: str) -> dict[str, tuple[str, float | None]]:
    heard: dict[str, tuple[str, float | None]] = {}

    def hear(key: str, text: str, confidence: float | None = None, /) -> None:
        heard[key] = text, confidence

    endpoint.chat({item: {"item": item} for item in items}, hear)
    return heard


def test_how_likely_the_tokens_were_is_told_only_where_it_is_asked_and_answered(server):
    asks, does_not = (chat.Endpoint(address(server), "echo", logprobs=asked) for asked in (True, False))
    assert said_by(asks, "calm", "silent") == {"calm": ("echo calm", -0.625), "silent": ("echo silent", None)}
    assert said_by(does_not, "calm") == {"calm": ("echo calm", None)}
