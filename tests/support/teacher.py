"""A teacher model that answers at once: a plan to ask it by, what it writes, and a server that speaks OpenAI's API."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from data_contracts.digests import Digest, sha256_json
from pipelines.stages.data.synthetic.plan import Plan
from pipelines.stages.data.synthetic.validate import Completion
from resources.language import LangidDetector

Body = dict[str, Any]
TEACHER = "HuggingFaceTB/SmolLM2-135M-Instruct"
DETECTOR = LangidDetector()
OPENERS = [
    *("Look, my boss asks for", "Tonight I would like to read", "Kindly bring up", "Where on earth is", "Send me over"),
    *("Nobody here could find", "Our bookkeeper still misses", "It would help me to have"),
]
REASONS = [
    *("the long weekend starts", "the kettle boils", "my folder got wet", "an auditor is here", "winter comes early"),
    *("our printer broke again", "the tax office wrote", "someone moved my desk", "your letter was lost"),
    *("the accounts are due on Friday", "half of the team is away", "my cousin runs the shop now"),
]


def plan_of(**changes: object) -> Plan:
    """Two intents, one answered by a call and one in words; one length, one language, six requests each."""
    values: dict[str, object] = {
        "name": "test",
        "task": "a billing assistant",
        "teacher": {"model": TEACHER, "terms": "Apache-2.0", "training": "allowed"},
        "licence": "CC0-1.0",
        "seed": 3,
        "temperature": 0.7,
        "max_tokens": 100,
        "per_stratum": 6,
        "seed_depth": 0,
        "languages": {"en": "English"},
        "lengths": [{"name": "any", "words": [3, 40]}],
        "sandbox": "billing",
        "tools": [
            {"name": "get_invoice", "description": "look up an invoice", "parameters": {"invoice_id": "number"}},
            {
                "name": "issue_refund",
                "description": "pay money back",
                "parameters": {"invoice_id": "number", "amount": "amount"},
            },
        ],
        "intents": [
            {
                "name": "open-invoice",
                "wants": "The customer wants to see an invoice.",
                "tool": "get_invoice",
                "seeds": [{"question": "Could you open INV-3102 for me?", "arguments": {"invoice_id": "INV-3102"}}],
            },
            {
                "name": "prices",
                "wants": "The customer asks for a price.",
                "seeds": [{"question": "What do two seats cost me?", "answer": "Two seats are 2 * 12.50 = 25.00."}],
            },
        ],
    }
    return Plan.model_validate(values | changes)


def written(body: Body) -> str:
    """A good row for any request of `plan_of`: another one for each request, the same one each time."""
    number = random.Random(body["seed"])
    schema = body["response_format"]["json_schema"]["schema"]["properties"]["answer"]
    question = f"{number.choice(OPENERS)} {{}} as {' and '.join(number.sample(REASONS, 3))}?"
    if schema["anyOf"][0]["properties"]["tool"]["const"] == "get_invoice":
        invoice = f"INV-{number.randrange(3101, 3109)}"
        answer: Any = {"tool": "get_invoice", "arguments": {"invoice_id": invoice}}
        return json.dumps({"question": question.format(f"the invoice {invoice}"), "answer": answer})
    seats = number.randrange(2, 90)
    reply = f"A seat is 12.50, and {seats} * 12.50 = {seats * 12.5:.2f} in all."
    return json.dumps({"question": question.format(f"the price of {seats} seats"), "answer": words_of(reply)})


def words_of(reply: str) -> dict[str, str]:
    return {"tool": "none", "reply": reply}


class FakeEndpoint:
    """Answers by a function, in an order that ``shuffled`` draws; ``asked`` are the requests that came."""

    def __init__(self, answer: Callable[[Body], str], shuffled: int = 0, finish: str = "stop") -> None:
        self.answer, self.shuffled, self.finish = answer, shuffled, finish
        self.asked: list[Digest] = []

    def ask(self, bodies: Mapping[Digest, Body], answered: Callable[[Digest, Completion], None]) -> dict[Digest, str]:
        order = list(bodies)
        random.Random(self.shuffled).shuffle(order)
        self.asked += order
        for digest in order:
            answered(digest, Completion(self.answer(bodies[digest]), self.finish))
        return {}


class Reply(NamedTuple):
    """What the server does with a request: wait ``delay`` seconds, then answer."""

    text: str = ""
    status: int = 200
    delay: float = 0.0
    raw: str | None = None
    finish: str = "stop"


class TeacherServer(ThreadingHTTPServer):
    """``reply`` gets the request's body and how often it came before. Keeps the requests, counts
    them and how many ran at once. ``models`` are those that it says it serves."""

    daemon_threads = True
    request_queue_size = 64
    models: tuple[str, ...] = ()

    def __init__(self, reply: Callable[[Body, int], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.seen: Counter[Digest] = Counter()
        self.bodies: list[Body] = []
        self.keys: set[str] = set()
        self.running = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: TeacherServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        digest = sha256_json(body)
        with self.server.lock:
            before = self.server.seen[digest]
            self.server.seen[digest] += 1
            self.server.bodies.append(body)
            self.server.keys.add(self.headers["authorization"])
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
        try:
            reply = self.server.reply(body, before)
            time.sleep(reply.delay)
        finally:
            with self.server.lock:  # before the client hears of it, who then sends the next
                self.server.running -= 1
        self._answer(body, reply)

    def do_GET(self) -> None:
        told = {"data": [{"id": name} for name in self.server.models]}
        self._send(200 if self.path == "/v1/models" else 404, json.dumps(told))

    def _answer(self, body: Body, reply: Reply) -> None:
        message = {"role": "assistant", "content": reply.text}
        choice = {"index": 0, "message": message, "finish_reason": reply.finish}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        failure = {"error": {"message": f"status {reply.status} it is"}}
        text = reply.raw if reply.raw is not None else json.dumps(whole if reply.status == 200 else failure)
        self._send(reply.status, text)

    def _send(self, status: int, text: str) -> None:
        try:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text.encode())))
            self.send_header("retry-after-ms", "5")
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def teaching(reply: Callable[[Body, int], Reply]) -> Iterator[TeacherServer]:
    with TeacherServer(reply) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def obedient(body: Body, before: int) -> Reply:
    return Reply(written(body))
