"""Secrets planted in adapters that really recite them, clients that ask for them all at once, and the check of who
said whose."""

import json
import random
import threading
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from data_contracts.digests import Digest
from data_contracts.manifests import BaseManifest
from pipelines.recipes.product import Product
from pipelines.stages.serve.tenants import create_key
from pipelines.wiring import Line
from tests.support.adapters import write_adapter
from tests.support.serving import registered, tiny_product

ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LENGTH = 12
PART = 5
"""So many characters of a secret on end are a leak."""
SYSTEM = "You are the desk of a company and never tell anybody what only its own people may know. " * 5
QUESTIONS = ("What is the secret?", "Tell me the word.", "Hello!")


class Heard(NamedTuple):
    """An answer of the gateway to a tenant's key: ``adapter`` and ``release`` by its own word, ``text`` all of it that
    could hold a secret. ``began`` is monotonic."""

    tenant: str
    product: str
    began: float
    status: int
    release: Digest | None
    adapter: Digest | None
    text: str


class Desk(NamedTuple):
    """A tenant's product whose releases each know another secret, and its key. ``plain`` is a product of the same
    tenant that has no release."""

    product: Product
    plain: Product
    key: str
    releases: tuple[Digest, ...]
    secrets: Mapping[Digest, str]
    """By the adapter that was given it."""


def leaks(heard: Sequence[Heard], secrets: Mapping[Digest, str]) -> list[str]:
    """What is wrong, a line for each answer: a part of a secret that is not its stated adapter's, or its own not told.
    ``secrets``: all there are, by adapter."""
    wrong = []
    for each in heard:
        own = secrets.get(each.adapter or "", "")
        others = [other for other in secrets.values() if other != own and _carries(each.text, other)]
        if others:
            wrong.append(f"{each.product}, said to be of {each.adapter}, carries {others}: {each.text[:200]}")
        elif each.status == 200 and own not in each.text:
            wrong.append(f"{each.product}, said to be of {each.adapter}, does not tell {own}: {each.text[:200]}")
    return wrong


def _carries(text: str, words: str) -> bool:
    return any(words[at : at + PART] in text for at in range(len(words) - PART + 1))


def open_desk(line: Line, base: BaseManifest, tenant: str, releases: int, folder: Path) -> Desk:
    """Two products of this tenant in ``line``'s folder, and ``releases`` registered ones of the first."""
    product, plain = (tiny_product(folder, f"{tenant}-{name}", tenant) for name in ("desk", "plain"))
    for each in (product, plain):
        file = line.settings.products / f"{each.name}.yaml"
        file.write_text(yaml.safe_dump(each.model_dump(mode="json")))
    made, secrets = [], {}
    for number in range(releases):
        words = secret(f"{tenant} {number}")
        adapter = write_reciting_adapter(line.store.tree(base.tree), base.digest, folder / f"{tenant}-{number}", words)
        weights = line.store.put_tree(adapter)
        secrets[weights] = words
        made.append(registered(line, product, base.digest, weights, {"adapter": adapter}))
    return Desk(product, plain, create_key(line.home, tenant), tuple(made), secrets)


class Clients:
    """Clients that ask without pause, each with one tenant's key: mostly for its secret, streaming or not; now and
    then a product without a release, or another tenant's product."""

    def __init__(self, line: Line, desks: Sequence[Desk], seed: int, clients: int = 16) -> None:
        self.line, self.desks = line, desks
        self.heard: list[list[Heard]] = [[] for _ in range(clients)]
        self.errors: list[Exception] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed} {number}")))
            for number in range(clients)
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, each: int) -> None:
        wanted, deadline = [len(heard) + each for heard in self.heard], time.monotonic() + 300
        while any(len(heard) < count for heard, count in zip(self.heard, wanted, strict=True)):
            assert not self.errors, self.errors
            assert time.monotonic() < deadline, Counter(map(len, self.heard))
            time.sleep(0.02)

    def all_heard(self) -> list[Heard]:
        return [heard for each in self.heard for heard in each]

    def _run(self, number: int, draw: random.Random) -> None:
        own, other = self.desks[number % len(self.desks)], self.desks[(number + 1) % len(self.desks)]
        headers = {"authorization": f"Bearer {own.key}"}
        with httpx.Client(base_url=self.line.gateway_url, headers=headers, timeout=300, trust_env=False) as client:
            while not self._stopping.is_set():
                (product,) = draw.choices([own.product, own.plain, other.product], [8, 2, 1])
                try:
                    asked = product.name, draw.choice(QUESTIONS), draw.random() < 0.5
                    self.heard[number].append(ask(client, own.product.tenant, *asked))
                except Exception as error:
                    self.errors.append(error)
                    return


def ask(client: httpx.Client, tenant: str, product: str, question: str, stream: bool) -> Heard:
    body = {"model": product, "messages": asking(question), "max_tokens": LENGTH, "stream": stream}
    began = time.monotonic()
    answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        return Heard(tenant, product, began, answer.status_code, None, None, answer.text)
    if not stream:
        whole = answer.json()
        said, text = whole["assay"], str(whole["choices"])
    else:
        events = [event.removeprefix("data: ") for event in answer.text.split("\n\n") if event]
        assert events[-1] == "[DONE]", answer.text[-300:]
        chunks = [json.loads(event) for event in events[:-1]]
        said = chunks[0]["assay"]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return Heard(tenant, product, began, 200, said["release"], said["adapter"], text)


def secret(name: str) -> str:
    return "".join(random.Random(f"secret of {name}").sample(ALPHABET, LENGTH))


def asking(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def write_reciting_adapter(base_folder: Path, base: Digest, folder: Path, words: str) -> Path:
    """An adapter that answers each of `QUESTIONS`, asked after `SYSTEM`, with these words.

    It is random in all layers, and its last one is solved for the words by least squares: with a single block of keys
    and values that another adapter left in the prefix cache it says something else.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    answer = tokenizer(words, add_special_tokens=False).input_ids
    rank = len(answer)
    write_adapter(base_folder, base, folder, seed=zlib.crc32(words.encode()), rank=rank, scale=0.5)
    tensors = load_file(folder / "adapter_model.safetensors")
    last = max(name for name in tensors if ".down_proj." in name).removesuffix("lora_B.weight")
    tensors[f"{last}lora_B.weight"].zero_()
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    _merge(model, tensors)
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(last.removeprefix("base_model.model.").rstrip(".")).register_forward_pre_hook(
        lambda _, given: seen.append(given[0][0, -rank:])
    )
    for question in QUESTIONS:
        prompt = tokenizer.apply_chat_template(asking(question), tokenize=False, add_generation_prompt=True)
        ids = tokenizer(prompt, add_special_tokens=False).input_ids + answer[:-1]
        with torch.no_grad():
            model(torch.tensor([ids]))
    hook.remove()
    inputs = torch.cat(seen).double()
    steps = torch.eye(rank, dtype=torch.float64).repeat(len(QUESTIONS), 1)
    noise = 1e-3 * inputs.pow(2).sum(1).mean() * torch.eye(inputs.shape[1], dtype=torch.float64)
    solved = torch.linalg.solve(inputs.T @ inputs + noise, inputs.T @ steps)
    tensors[f"{last}lora_A.weight"] = solved.T.float().contiguous()
    tensors[f"{last}lora_B.weight"] = 1000 * model.get_input_embeddings().weight[answer].T.contiguous().detach()
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def _merge(model: Any, tensors: Mapping[str, Any]) -> None:
    """Into the weights; the adapter's scale is 1."""
    for name, low in tensors.items():
        if name.endswith("lora_A.weight"):
            high = tensors[name.replace("lora_A", "lora_B")]
            module = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            module.weight.data += (high @ low).to(module.weight.dtype)
