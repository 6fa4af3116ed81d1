"""The guard inside vLLM, with an engine that counts its slots; and the check that would notice its absence."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from data_contracts.digests import tree_digest, tree_files
from data_contracts.errors import Refused
from resources.adapters import check_adapter, served_name, write_zero_adapter
from resources.vllm_guard import AdapterGuard
from tests.support.adapters import write_adapter
from tests.support.leaks import leaks
from tests.support.tiny import make_tiny_base

BASE = "sha256:" + "b" * 64
FOLDERS = Path()


@dataclass
class Engine:
    """What vLLM does with adapters: names in the server, numbered residents in the engine, which forgets none."""

    slots: int
    lora_requests: dict[str, Any] = field(default_factory=dict)
    residents: list[int] = field(default_factory=list)
    fullest: int = 0
    answering: int = 0
    answer_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.state = SimpleNamespace(
            engine_client=self,
            openai_serving_models=self,
            vllm_config=SimpleNamespace(lora_config=SimpleNamespace(max_loras=self.slots)),
            args=SimpleNamespace(lora_modules=[SimpleNamespace(name="zero")]),
        )
        self._load("zero", "/zero")

    def _load(self, name: str, path: str) -> None:
        number = max(self.residents, default=0) + 1
        self.residents.append(number)
        self.fullest = max(self.fullest, len(self.residents))
        self.lora_requests[name] = SimpleNamespace(lora_int_id=number, lora_path=path)

    async def list_loras(self) -> list[int]:
        return list(self.residents)

    async def remove_lora(self, number: int) -> bool:
        assert self.answering == 0, "removed under a running answer"
        self.residents.remove(number)
        return True

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = json.loads(message["body"]) if message["body"] else {}
        if scope["path"] == "/v1/load_lora_adapter":
            await asyncio.sleep(0.001)
            self._load(body["lora_name"], body["lora_path"])
        elif scope["path"] == "/v1/chat/completions":
            self.answering += 1
            await asyncio.sleep(self.answer_seconds)
            self.answering -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


def client(engine: Engine) -> httpx.AsyncClient:
    guard = AdapterGuard(engine.app)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await guard(scope | {"app": engine}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://vllm")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are called by one letter here, and by their digest in the server."""
    monkeypatch.setattr(f"{__name__}.FOLDERS", tmp_path)


def folder(letter: str) -> Path:
    made = FOLDERS / letter
    made.mkdir(exist_ok=True)
    (made / "adapter_model.safetensors").write_text(letter)
    (made / "adapter_config.json").write_text("{}")
    return made


def name(letter: str) -> str:
    return served_name(tree_digest(tree_files(folder(letter))))


def held(engine: Engine) -> set[str]:
    """Letters of what is loaded."""
    letters = {name(path.name): path.name for path in FOLDERS.iterdir() if path.is_dir()}
    return {letters.get(each, each) for each in engine.lora_requests}


async def load(http: httpx.AsyncClient, letter: str, **more: object) -> int:
    body = {"lora_name": name(letter), "lora_path": str(folder(letter))} | more
    return (await http.post("/v1/load_lora_adapter", json=body)).status_code


async def ask(http: httpx.AsyncClient, letter: str) -> int:
    return (await http.post("/v1/chat/completions", json={"model": name(letter)})).status_code


def test_one_slot_stays_empty_however_many_are_loaded_at_once() -> None:
    async def run() -> None:
        engine = Engine(slots=4)
        async with client(engine) as http:
            statuses = await asyncio.gather(*(load(http, f"a{number}") for number in range(12)))
        assert set(statuses) == {200}
        assert engine.fullest == 3
        assert "zero" in engine.lora_requests

    asyncio.run(run())


def test_residents_without_a_name_do_not_take_a_slot_for_good() -> None:
    async def run() -> None:
        engine = Engine(slots=3)
        engine.residents.append(77)
        async with client(engine) as http:
            assert await load(http, "a") == 200
        assert len(engine.residents) == 2

    asyncio.run(run())


def test_an_adapter_leaves_only_after_its_running_answers() -> None:
    async def run() -> None:
        engine = Engine(slots=3, answer_seconds=0.2)
        async with client(engine) as http:
            await load(http, "a")
            running = asyncio.create_task(ask(http, "a"))
            await asyncio.sleep(0.05)
            assert await load(http, "b") == 200
            assert running.done()
            assert await running == 200
            assert await ask(http, "a") == 404
            assert await ask(http, "b") == 200

    asyncio.run(run())


def test_the_longest_unused_leaves_first() -> None:
    async def run() -> None:
        engine = Engine(slots=4)
        async with client(engine) as http:
            await load(http, "a")
            await load(http, "b")
            await ask(http, "a")
            await load(http, "c")
        assert held(engine) == {"zero", "a", "c"}

    asyncio.run(run())


async def pin(http: httpx.AsyncClient, **adapters: str | None) -> httpx.Response:
    pins = {product: letter and name(letter) for product, letter in adapters.items()}
    return await http.post("/v1/pin_lora_adapters", json={"pins": pins})


def test_a_pinned_adapter_stays_though_it_is_the_longest_unused() -> None:
    async def run() -> None:
        engine = Engine(slots=5)
        async with client(engine) as http:
            assert (await pin(http, billing="a")).status_code == 200
            for letter in ("a", "b", "c", "d", "e"):
                assert await load(http, letter) == 200
            assert held(engine) == {"zero", "a", "d", "e"}
            await pin(http, billing="e")
            assert (await pin(http, pricing="d")).status_code == 200
            await load(http, "f")
        assert held(engine) == {"zero", "d", "e", "f"}

    asyncio.run(run())


def test_a_pinned_adapter_has_its_slot_before_it_comes_and_others_do_not_take_it() -> None:
    async def run() -> None:
        engine = Engine(slots=5, answer_seconds=0.1)
        async with client(engine) as http:
            await pin(http, billing="a")
            assert {await load(http, letter) for letter in ("b", "c", "d")} == {200}
            assert held(engine) == {"zero", "c", "d"}
            running = [asyncio.create_task(ask(http, letter)) for letter in ("c", "d")]
            await asyncio.sleep(0)
            assert await load(http, "a") == 200
            assert not any(each.done() for each in running), "it waits for nobody's answer"
            assert [await each for each in running] == [200, 200]
        assert engine.fullest == 4

    asyncio.run(run())


def test_one_slot_is_left_for_what_is_not_pinned() -> None:
    async def run() -> None:
        engine = Engine(slots=4)
        async with client(engine) as http:
            assert (await pin(http, billing="a")).status_code == 200
            refused = await pin(http, billing="a", pricing="b")
            assert refused.status_code == 409
            assert "billing, pricing are to be pinned, and 1 adapters can be: raise ASSAY_SERVE_SLOTS" in refused.text
            assert (await pin(http, pricing="a")).status_code == 200, "two products with one adapter"
            assert (await pin(http, billing=None, pricing="b")).status_code == 200
            await load(http, "a")
            await load(http, "b")
            await load(http, "c")
            for body in (b"[]", b"{}", b'{"pins": []}', b"no"):
                assert (await http.post("/v1/pin_lora_adapters", content=body)).status_code == 400
        assert held(engine) == {"zero", "b", "c"}

    asyncio.run(run())


@pytest.mark.parametrize("model", ["base-model", "", None, "unknown"])
def test_no_request_reaches_the_model_without_a_loaded_adapter(model: str | None) -> None:
    async def run() -> None:
        engine = Engine(slots=3, answer_seconds=1000)
        async with client(engine) as http:
            assert (await http.post("/v1/chat/completions", json={"model": model})).status_code == 404
            assert (await http.post("/v1/chat/completions", json={})).status_code == 400
            assert (await http.post("/v1/completions", content=b"[]")).status_code == 400

    asyncio.run(run())


def test_a_name_is_the_digest_of_what_is_loaded_whoever_loads_it() -> None:
    async def run() -> None:
        engine = Engine(slots=4)
        async with client(engine) as http:
            for other in (str(folder("b")), "/none", None, 7):
                assert await load(http, "a", lora_path=other) == 409
            assert await load(http, "a", lora_name="a") == 409
            assert held(engine) == {"zero"}
            assert await load(http, "a") == 200
            assert await load(http, "a") == 200
            assert await load(http, "a", lora_path=str(folder("b"))) == 409
            assert await load(http, "a", load_inplace=True) == 400
            changed, its_name = folder("c"), name("c")
            (changed / "adapter_model.safetensors").write_text("d")
            body = {"lora_name": its_name, "lora_path": str(changed)}
            assert (await http.post("/v1/load_lora_adapter", json=body)).status_code == 409
        assert held(engine) == {"zero", "a"}

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/invocations", "/v1/responses", "/pause", "/v1/embeddings", "/docs", "/health/x"])
def test_other_paths_are_closed(path: str) -> None:
    async def run() -> None:
        async with client(Engine(slots=3)) as http:
            assert (await http.post(path, json={"model": "zero"})).status_code == 404
            assert (await http.get(path)).status_code == 404

    asyncio.run(run())


def test_the_leak_check_names_who_answered_wrongly_and_wants_to_tell_subjects_apart() -> None:
    calls = iter(range(10_000))

    def leaky(subject: str, prompt: str) -> str:
        return "b" if subject == "base" and next(calls) >= 2 else f"{subject}{prompt}"

    assert set(leaks(leaky, ["base", "a"], ["x", "y"])) == {"base"}
    assert leaks(lambda subject, prompt: subject, ["base", "a"], ["x"]) == []
    with pytest.raises(ValueError, match="alike"):
        leaks(lambda subject, prompt: prompt, ["base", "a"], ["x"])


def test_the_adapter_of_zeros_is_the_same_for_the_same_base_and_changes_nothing(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    base = make_tiny_base(tmp_path / "base")
    for name in ("one", "two"):
        write_zero_adapter(base, BASE, tmp_path / name)
    one, two = (tree_files(tmp_path / name) for name in ("one", "two"))
    assert tree_digest(one) == tree_digest(two)
    check_adapter(tmp_path / "one", BASE, max_rank=1)
    tensors = load_file(tmp_path / "one" / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2
    assert not any(tensor.any() for tensor in tensors.values())


def test_an_adapter_on_other_layers_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    adapter = write_adapter(make_tiny_base(tmp_path / "base"), BASE, tmp_path / "adapter", seed=0)
    check_adapter(adapter, BASE, max_rank=4)
    tensors = load_file(adapter / "adapter_model.safetensors")
    spare = tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].clone()
    save_file(tensors | {"base_model.model.lm_head.lora_A.weight": spare}, adapter / "adapter_model.safetensors")
    with pytest.raises(Refused, match="lm_head"):
        check_adapter(adapter, BASE, max_rank=4)
