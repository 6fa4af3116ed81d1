"""Ask an OpenAI-compatible server many questions at once. Every question is answered or the whole run is an error."""

import asyncio
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_contracts.digests import Digest, sha256_file
from data_contracts.errors import BadInput, Unavailable
from evals.protocols import Hears, Question
from pipelines.recipes.product import ROOT

CONCURRENCY = 16
TRIES = 4
WAIT_S = 2.0
_TIMEOUT_S = 300.0
_SERVE_LOCK = ROOT / "requirements" / "serve.txt"
_MAX_LENGTH = 2048
"""Tokens that a server is taken to read where it does not tell."""
_BATCH = 16
"""Texts whose likelihood one request asks for."""

K = TypeVar("K", bound=str)


class Said(NamedTuple):
    text: str
    confidence: float | None


class Endpoint:
    """Implements `evals.protocols.Answerer` for the model that a server calls ``name``. ``url`` ends in ``/v1``.

    ``tokenizer`` gives the folder of the model's tokenizer: lm-eval has to tell a question from its choices.
    ``logprobs`` asks how likely each token was, which some servers refuse to tell."""

    def __init__(
        self,
        url: str,
        name: str,
        tokenizer: Callable[[], Path] | None = None,
        key: str | None = None,
        logprobs: bool = False,
    ) -> None:
        self.url, self.name, self.tokenizer = url, name, tokenizer
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.logprobs = logprobs

    def engine(self) -> str:
        return engine(self.url, self.headers)

    def card(self) -> dict[str, Any]:
        """What the server says of the model. Raises `Unavailable` when it does not answer, `BadInput` when it knows
        none of that name."""
        import httpx

        try:
            answer = httpx.get(f"{self.url}/models", headers=self.headers, timeout=30)
            answer.raise_for_status()
            cards = {card["id"]: card for card in answer.json()["data"]}
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                f"no model server answers at {self.url}/models ({error}): start it, or correct the address, which "
                "ends in /v1"
            ) from error
        if self.name not in cards:
            raise BadInput(f"{self.url} serves no model {self.name!r}: it has {', '.join(sorted(cards)) or 'none'}")
        return dict(cards[self.name])

    def chat(self, questions: Mapping[Digest, Question], answered: Hears) -> None:
        whose = {"model": self.name} | ({"logprobs": True} if self.logprobs else {})
        bodies = {key: whose | question for key, question in questions.items()}
        asyncio.run(_ask_all(self.url, bodies, lambda key, said: answered(key, *said), self.headers))

    def lm(self) -> Any:
        if self.tokenizer is None:
            raise BadInput(f"lm-eval needs the tokenizer of the model {self.name}: name its folder")
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        return LocalCompletionsAPI(
            base_url=f"{self.url}/completions",
            model=self.name,
            tokenizer=str(self.tokenizer()),
            tokenizer_backend="huggingface",
            header=self.headers or None,
            num_concurrent=2,
            batch_size=_BATCH,
            max_length=int(self.card().get("max_model_len") or _MAX_LENGTH),
        )


def ask_all(
    url: str,
    questions: Mapping[K, dict[str, Any]],
    answered: Callable[[K, str], None],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Chat-completion body by name -> each generated text to ``answered`` as it comes. ``url`` ends in ``/v1``.

    Raises `Unavailable`; lost connections are tried again, any other failure is not."""
    asyncio.run(_ask_all(url, questions, lambda name, said: answered(name, said.text), headers or {}))


def server_lock() -> Digest:
    """Names the software of our own server."""
    return sha256_file(_SERVE_LOCK)


def engine(url: str, headers: Mapping[str, str] | None = None) -> str:
    """Name and version of the server; its address where it tells neither."""
    import httpx

    try:
        answer = httpx.get(url.removesuffix("/v1") + "/version", headers=headers, timeout=30)
    except httpx.HTTPError as error:
        raise Unavailable(f"no model server answers at {url}: {error}") from error
    try:
        return f"vllm {answer.raise_for_status().json()['version']}"
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return f"server at {url}"


async def _ask_all(
    url: str,
    questions: Mapping[K, dict[str, Any]],
    answered: Callable[[K, Said], None],
    headers: Mapping[str, str],
) -> None:
    import httpx

    turns = asyncio.Semaphore(CONCURRENCY)

    async with httpx.AsyncClient(timeout=_TIMEOUT_S, headers=headers) as client:

        async def ask(name: K, body: dict[str, Any]) -> None:
            async with turns:
                answered(name, await _ask(client, url, name, body))

        try:
            async with asyncio.TaskGroup() as group:
                for name, body in questions.items():
                    group.create_task(ask(name, body))
        except ExceptionGroup as failures:  # the first failure stops the others and says it all
            raise failures.exceptions[0] from None


async def _ask(client: Any, url: str, name: str, body: dict[str, Any]) -> Said:
    import httpx

    for attempt in range(1, TRIES + 1):
        try:
            answer = await client.post(f"{url}/chat/completions", json=body)
        except httpx.TransportError as error:
            if attempt == TRIES:
                raise Unavailable(f"no answer from {url} to item {name} in {TRIES} tries: {error!r}") from error
            await asyncio.sleep(WAIT_S * attempt)
            continue
        if answer.status_code != 200:
            raise Unavailable(f"{url} answered item {name} with status {answer.status_code}: {answer.text[:300]}")
        choice = answer.json()["choices"][0]
        text = choice["message"]["content"]
        return Said(text if isinstance(text, str) else "", _confidence(choice))
    raise AssertionError("unreachable")


def _confidence(choice: Mapping[str, Any]) -> float | None:
    """To three places: what lies behind them hangs on what else the server computed at the time."""
    found = [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or ()]
    return round(math.fsum(found) / len(found), 3) + 0.0 if found else None  # and no -0.0
