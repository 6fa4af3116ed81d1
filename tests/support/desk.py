"""A technique desk without a model: a server whose answers show who was asked what, and a product with documents."""

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml
from numpy.typing import NDArray

from evals.answers import call, words
from tests.support.line import FakeServer, SmallLine

ITEMS = 12
"""Of each suite, each a cluster of its own: where two techniques score alike, the interval of their difference reaches
a third either way, which the suites' margin allows."""
PER_WORD_S = 0.002
"""A prompt takes so long by its length: what is asked with more words costs more."""


class ByWord:
    """Texts with the same words are near."""

    identity = "words 1"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), 512), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, crc32(word.encode()) % 512] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


class DeskServer(ThreadingHTTPServer):
    """The base repeats the passages that it is given and else knows nothing; after worked examples it makes the right
    call. Any other model knows every value and every call. ``fails``: nobody is answered against the clock."""

    daemon_threads = True
    request_queue_size = 64
    fails = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []

    def kept(self) -> list[dict[str, Any]]:
        return [body for body in self.asked if not body.get("stream")]

    def timed(self) -> list[dict[str, Any]]:
        return [body for body in self.asked if body.get("stream")]


class _Handler(BaseHTTPRequestHandler):
    server: DeskServer

    def do_GET(self) -> None:
        self._send(200, json.dumps({"version": "9"}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        text = _answer(body)
        prompt = sum(len(message["content"].split()) for message in body["messages"])
        if not body.get("stream"):
            self._send(200, json.dumps({"choices": [{"message": {"content": text}}]}))
            return
        time.sleep(prompt * PER_WORD_S)
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text.split())}
        events = [{"choices": [{"delta": {"content": text}}]}, {"choices": [], "usage": usage}]
        told = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self._send(500 if self.server.fails else 200, told)

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _answer(body: dict[str, Any]) -> str:
    text = body["messages"][-1]["content"]
    tuned = body["model"] != "base"
    if "assay_tools" in body.get("chat_template_kwargs", {}):
        invoice = re.search(r"INV-\d+", text.split("\n\n")[-1])
        knows = tuned or len(body["messages"]) > 1
        return call("get_invoice", {"invoice_id": invoice[0]}) if knows and invoice else words("What is it?")
    topic = re.findall(r"topic(\d+)", text)[-1]
    return f"It is value{topic}." if tuned else text.rpartition("\n\n")[0] or "I do not know."


@contextmanager
def answering() -> Iterator[DeskServer]:
    with DeskServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def write_desk(folder: Path, **changes: Any) -> dict[str, Any]:
    """A desk section of two suites with their files: calls, and facts of which each document answers two."""
    documents = [
        {"id": f"d{n}", "text": f"Of topic{n} we say value{n}.", "written": "2025-01-01", "changed": ["2026-01-10"]}
        for n in range(ITEMS)
    ]
    facts = [
        {"id": f"f{n}", "cluster": f"d{n}", "text": f"What do we say of topic{n}?", "answers": [f"value{n}"]}
        for n in range(ITEMS)
    ]
    calls = [
        {
            "id": f"c{n}",
            "cluster": f"p{n}",
            "text": f"Open INV-{n} for me.",
            "tools": ["get_invoice", "update_card", "apply_coupon"],
            "expect": "call",
            "tool": "get_invoice",
            "arguments": {"invoice_id": f"INV-{n}"},
        }
        for n in range(ITEMS)
    ]
    examples = [{"id": "e", "cluster": "e", "text": "Who are you?", "answers": ["An assistant."]}]
    for name, rows in (("documents", documents), ("facts", facts), ("calls", calls), ("examples", examples)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    terms = {"layer": "product", "description": "d", "unit": "u", "cluster": "c", "direction": "higher-is-better"}
    terms |= {"licence": "CC0-1.0", "origin": "generated", "margin": 0.4}
    questions = {"name": "facts", "asks": "questions", "metrics": ["contains"], "headline": "contains"}
    (folder / "facts.yaml").write_text(yaml.safe_dump(terms | questions | {"data": "facts.jsonl"}))
    made = {"name": "calls", "metrics": ["exact"], "headline": "exact", "data": "calls.jsonl"}
    (folder / "calls.yaml").write_text(yaml.safe_dump(terms | made))
    section = {"documents": str(folder / "documents.jsonl"), "examples": str(folder / "examples.jsonl")}
    section |= {"as_of": "2026-11-01", "retrained_days": 365}
    return section | {"suites": [str(folder / "calls.yaml")], "facts": [str(folder / "facts.yaml")]} | changes


class DeskLine:
    """A small line whose product has a desk, before a `DeskServer`."""

    def __init__(self, folder: Path, server: DeskServer, name: str = "small") -> None:
        self.server = server
        self.small = SmallLine(folder / "small", name)
        self.folder = folder
        self.file = folder / "small" / "products" / f"{name}.yaml"
        vllm = FakeServer()
        vllm.url = lambda: f"http://127.0.0.1:{server.server_port}/v1"  # type: ignore[method-assign]
        self.small.parts.__dict__.update(server=vllm, embedder=ByWord())
        self.write()

    def write(self, **changes: Any) -> None:
        """The product file with this desk."""
        self._put({"desk": write_desk(self.folder, **changes)})

    def leave_out(self) -> None:
        self._put({"desk": None})

    def _put(self, changes: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(yaml.safe_load(self.file.read_text()) | changes))
