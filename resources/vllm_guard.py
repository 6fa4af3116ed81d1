"""ASGI middleware inside the vLLM server that makes the wrong-adapter fault impossible. Standard library only: it runs
in the serving environment.

Stock vLLM gives a request without an adapter another request's adapter when every LoRA slot is taken. Here

* a request for the base itself is refused (the base answers through an adapter of zeros), so that no such request
  exists, whoever sends it;
* one slot always stays empty: the engine is asked what it holds, and the least recently used adapter leaves, after
  its running answers, before another comes. vLLM's own unload forgets the name and keeps the slot;
* a pinned adapter makes room for no other, and has its slot before it is loaded;
* a name never binds other bytes: it is the digest of the folder that is loaded, whoever loads it. Weights are never
  exchanged under a running answer.

Every path that is not listed is closed: vLLM has others that run the model.
"""

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = {("GET", "/health"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/version"), ("POST", "/tokenize")}
ANSWERS = {"/v1/chat/completions", "/v1/completions"}
DRAIN_SECONDS = 120
LOAD, UNLOAD, PIN = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/pin_lora_adapters"


class AdapterGuard:
    def __init__(self, app: App) -> None:
        self.app = app
        self.changes = asyncio.Lock()
        self.running: Counter[str] = Counter()
        self.used: dict[str, float] = {}
        self.pinned: dict[str, str] = {}
        """The adapter of each product that has one."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope.get("method"), scope.get("path")) in OPEN:
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in {*ANSWERS, LOAD, UNLOAD, PIN}:
            await _reply(send, 404, "this path is closed")
            return
        body = await _read(receive)
        if scope["path"] == PIN:
            await self._pin(scope, body, send)
            return
        try:
            asked = json.loads(body)
            name = str(asked["model" if scope["path"] in ANSWERS else "lora_name"])
        except (ValueError, KeyError, TypeError):
            await _reply(send, 400, "the body must be JSON and name an adapter")
            return
        if scope["path"] in ANSWERS:
            await self._answer(scope, name, _again(body, receive), send)
        elif scope["path"] == LOAD:
            await self._load(scope, asked, _again(body, receive), send)
        else:
            async with self.changes:
                gone = await self._evict(scope, name)
            await _reply(send, 200 if gone else 409, f"{name} is unloaded" if gone else f"{name} is still answering")

    async def _answer(self, scope: Message, name: str, receive: Receive, send: Send) -> None:
        if name not in _served(scope).lora_requests:
            await _reply(send, 404, f"no adapter {name} is loaded (the base itself is not answered)")
            return
        self.running[name] += 1
        self.used[name] = time.monotonic()
        try:
            await self.app(scope, receive, send)
        finally:
            self.running[name] -= 1

    async def _load(self, scope: Message, asked: dict[str, Any], receive: Receive, send: Send) -> None:
        name, path = asked["lora_name"], asked.get("lora_path")
        if set(asked) != {"lora_name", "lora_path"}:
            await _reply(send, 400, "a load names lora_name and lora_path, nothing else")
            return
        if name != await asyncio.to_thread(_name_of, Path(str(path))):
            await _reply(send, 409, f"the files in {path} are not those that {name} names")
            return
        async with self.changes:
            if name in _served(scope).lora_requests:
                await _reply(send, 200, f"{name} is loaded")
            elif await self._make_room(scope, name):
                self.used[name] = time.monotonic()
                await self.app(scope, receive, send)
            else:
                await _reply(send, 409, "no adapter slot can be freed")

    async def _pin(self, scope: Message, body: bytes, send: Send) -> None:
        """Adapters by product, ``null`` for none; products that are not named keep theirs. All of it, or nothing where
        not one slot would be left for the others."""
        try:
            asked = {str(product): name and str(name) for product, name in json.loads(body)["pins"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            await _reply(send, 400, "the body must be JSON with pins: adapters by product")
            return
        most = max(_slots(scope) - 3, 0)
        async with self.changes:
            pinned = {product: name for product, name in (self.pinned | asked).items() if name}
            if len(set(pinned.values())) > most:
                await _reply(
                    send,
                    409,
                    f"{', '.join(sorted(pinned))} are to be pinned, and {most} adapters can be: raise "
                    "ASSAY_SERVE_SLOTS, or let some have placement: dynamic",
                )
                return
            self.pinned = pinned
            await _reply(send, 200, f"{len(pinned)} pinned")

    async def _make_room(self, scope: Message, coming: str) -> bool:
        """Leave two slots empty, one for the adapter that comes and one for good; and one for each pinned adapter that
        is not there yet."""
        engine, named = scope["app"].state.engine_client, _served(scope).lora_requests
        pinned = set(self.pinned.values())
        most = _slots(scope) - 2 - len(pinned - named.keys() - {coming})
        static = {module.name for module in scope["app"].state.args.lora_modules or ()}
        held = set(await engine.list_loras())
        for nameless in held - {request.lora_int_id for request in named.values()} if len(held) > most else ():
            await engine.remove_lora(nameless)
        while len(await engine.list_loras()) > most:
            leaving = min(named.keys() - static - pinned, key=self._worth, default=None)
            if leaving is None or not await self._evict(scope, leaving):
                return False
        return True

    def _worth(self, name: str) -> tuple[bool, float]:
        """Idle ones leave first, then those whose last request is longest ago."""
        return self.running[name] > 0, self.used.get(name, 0.0)

    async def _evict(self, scope: Message, name: str) -> bool:
        """Take no new requests for an adapter, let the running ones finish, then free its slot."""
        named = _served(scope).lora_requests
        request = named.pop(name, None)
        if request is None:
            return True
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.running[name] > 0:
            if time.monotonic() > deadline:
                named[name] = request
                return False
            await asyncio.sleep(0.02)
        await scope["app"].state.engine_client.remove_lora(request.lora_int_id)
        del self.running[name]
        self.used.pop(name, None)
        return True


def _name_of(folder: Path) -> str:
    """As `resources.adapters.served_name` has it, from the digest of the files; empty where they cannot be read."""
    try:
        files = {path.relative_to(folder).as_posix(): _sha256(path) for path in folder.rglob("*") if path.is_file()}
    except OSError:
        return ""
    listed = json.dumps(files, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"adapter-{hashlib.sha256(listed.encode()).hexdigest()}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _slots(scope: Message) -> int:
    return int(scope["app"].state.vllm_config.lora_config.max_loras)


def _served(scope: Message) -> Any:
    return scope["app"].state.openai_serving_models


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the read body once more, then what follows it (a disconnect)."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


async def _reply(send: Send, status: int, text: str) -> None:
    kind = "message" if status < 400 else "error"
    body = json.dumps({kind: {"message": text, "code": status} if status >= 400 else text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
