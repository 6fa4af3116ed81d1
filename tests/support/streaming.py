"""An OpenAI-compatible server that streams words at a given pace, and fails when it is told to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Pace(NamedTuple):
    """Seconds until the first word, seconds between words, how many; ``breaks``: no end; ``terse``: the
    finish reason is the end; ``status``: no answer; ``usage``: whether tokens are counted."""

    first: float = 0.0
    between: float = 0.0
    words: int = 4
    status: int = 200
    breaks: bool = False
    terse: bool = False
    usage: bool = True


class StreamingServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, pace: Callable[[str], Pace]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pace = pace
        self.asked: list[tuple[float, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def texts(self) -> list[str]:
        return [body["messages"][-1]["content"] for _, body in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: StreamingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((time.monotonic(), body))
        pace = self.server.pace(body["messages"][-1]["content"])
        self.send_response(pace.status)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if pace.status != 200:
            return
        self._send({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        time.sleep(pace.first)
        for number in range(pace.words):
            time.sleep(pace.between if number else 0)
            self._send({"choices": [{"index": 0, "delta": {"content": "word "}}]})
        if pace.breaks:
            return
        usage = {"usage": {"completion_tokens": pace.words}} if pace.usage else {}
        if pace.terse:
            self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]} | usage)
            return
        self._send({"choices": []} | usage)
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def streaming(pace: Callable[[str], Pace]) -> Iterator[StreamingServer]:
    with StreamingServer(pace) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
