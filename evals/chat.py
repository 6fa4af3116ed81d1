"""Ask an OpenAI-compatible server many questions at once. Every question is answered or the whole run is an error."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from data_contracts.digests import Digest, sha256_file
from data_contracts.errors import Unavailable
from pipelines.recipes.product import ROOT

CONCURRENCY = 16
TRIES = 4
WAIT_S = 2.0
_TIMEOUT_S = 300.0
_SERVE_LOCK = ROOT / "requirements" / "serve.txt"


def ask_all(url: str, questions: Mapping[str, dict[str, Any]], progress: Callable[[int], None]) -> dict[str, str]:
    """Chat-completion body by item -> generated text by item. ``url`` ends in ``/v1``; ``progress`` gets the number
    answered so far. Raises `Unavailable`; lost connections are tried again, any other failure is not."""
    return asyncio.run(_ask_all(url, questions, progress))


def server_lock() -> Digest:
    """Names the software that answers."""
    return sha256_file(_SERVE_LOCK)


def engine(url: str) -> str:
    """Name and version of the server."""
    import httpx

    try:
        answer = httpx.get(url.removesuffix("/v1") + "/version", timeout=30)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"the model server at {url} does not tell its version: {error}") from error
    return f"vllm {answer.json()['version']}"


async def _ask_all(
    url: str, questions: Mapping[str, dict[str, Any]], progress: Callable[[int], None]
) -> dict[str, str]:
    import httpx

    turns = asyncio.Semaphore(CONCURRENCY)
    answers: dict[str, str] = {}

    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:

        async def ask(item: str, body: dict[str, Any]) -> None:
            async with turns:
                answers[item] = await _ask(client, url, item, body)
            progress(len(answers))

        try:
            async with asyncio.TaskGroup() as group:
                for item, body in questions.items():
                    group.create_task(ask(item, body))
        except ExceptionGroup as failures:  # the first failure stops the others and says it all
            raise failures.exceptions[0] from None
    return answers


async def _ask(client: Any, url: str, item: str, body: dict[str, Any]) -> str:
    import httpx

    for attempt in range(1, TRIES + 1):
        try:
            answer = await client.post(f"{url}/chat/completions", json=body)
        except httpx.TransportError as error:
            if attempt == TRIES:
                raise Unavailable(f"no answer from {url} to item {item} in {TRIES} tries: {error!r}") from error
            await asyncio.sleep(WAIT_S * attempt)
            continue
        if answer.status_code != 200:
            raise Unavailable(f"{url} answered item {item} with status {answer.status_code}: {answer.text[:300]}")
        text = answer.json()["choices"][0]["message"]["content"]
        return text if isinstance(text, str) else ""
    raise AssertionError("unreachable")
