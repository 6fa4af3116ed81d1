"""Ask servers the same questions in turns and time every answer as it streams."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_contracts.errors import Unavailable
from data_contracts.frozen import Frozen

_TIMEOUT_S = 600.0

Messages = list[dict[str, Any]]


class Served(Frozen):
    """A model behind an OpenAI-compatible server (``url`` ends in ``/v1``). ``template`` is a chat template to send
    along, for a server whose model has none. ``price`` is what an hour of the devices that serve it costs."""

    name: str
    url: str
    model: str
    price: float
    template: str | None = None


class Answer(Frozen):
    """One request, in seconds from sending it. ``tokens`` are the completion tokens that the server counts,
    ``prompt_tokens`` those of the question; ``error`` says why there is no answer, and then the other figures are those
    of the failure."""

    prompt: int
    round: int
    seconds: float
    first_token_s: float | None = None
    tokens: int | None = None
    prompt_tokens: int | None = None
    error: str = ""


class Timed(Frozen):
    """All answers of one server, in the order of the prompts. ``busy_s``: wall clock of each round."""

    answers: tuple[Answer, ...]
    busy_s: tuple[float, ...]


def quantile(values: Sequence[float], share: float) -> float | None:
    """The least measured value that at least this share of all do not exceed; ``None`` of none."""
    import numpy as np

    return float(np.quantile(values, share, method="inverted_cdf")) if values else None


def compare(
    sides: tuple[Served, Served],
    prompts: Sequence[Messages],
    max_tokens: int,
    concurrency: int,
    warm_up: int,
    keys: tuple[str, str] = ("none", "none"),
    say: Callable[[int], None] = lambda done: None,
) -> tuple[Timed, Timed]:
    """Time two servers: see `measure`."""
    first, second = measure(sides, prompts, max_tokens, concurrency, warm_up, keys, say)
    return first, second


def measure(
    sides: Sequence[Served],
    prompts: Sequence[Messages],
    max_tokens: int,
    concurrency: int,
    warm_up: int,
    keys: Sequence[str],
    say: Callable[[int], None] = lambda done: None,
) -> tuple[Timed, ...]:
    """Rounds of ``concurrency`` prompts, each asked of one side after the other; who is first changes with each round,
    so that a drift of the machine meets all. The first ``warm_up`` prompts only warm them up.

    ``say`` gets the number of prompts done. Raises `Unavailable` when the warm-up gets no answer: nothing is measured.
    """
    bodies = [[_body(side, messages, max_tokens) for messages in prompts] for side in sides]
    return measure_bodies(sides, bodies, concurrency, warm_up, keys, say)


def measure_bodies(
    sides: Sequence[Served],
    bodies: Sequence[Sequence[Mapping[str, Any]]],
    concurrency: int,
    warm_up: int,
    keys: Sequence[str],
    say: Callable[[int], None] = lambda done: None,
) -> tuple[Timed, ...]:
    """The same of chat-completion bodies [side][prompt], which lack only the model."""
    return asyncio.run(_measure(sides, bodies, concurrency, warm_up, keys, say))


async def _measure(
    sides: Sequence[Served],
    bodies: Sequence[Sequence[Mapping[str, Any]]],
    concurrency: int,
    warm_up: int,
    keys: Sequence[str],
    say: Callable[[int], None],
) -> tuple[Timed, ...]:
    import httpx

    order = list(range(len(sides)))
    answers: list[list[Answer]] = [[] for _ in sides]
    busy: list[list[float]] = [[] for _ in sides]
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:

        async def ask(side: int, numbers: Sequence[int], round_: int) -> list[Answer]:
            asked = (
                _answer(client, sides[side], keys[side], bodies[side][number], number, round_) for number in numbers
            )
            return list(await asyncio.gather(*asked))

        for side in order:
            warm = await ask(side, range(warm_up), -1)
            if warm and all(answer.error for answer in warm):
                raise Unavailable(f"{sides[side].name}: {sides[side].url} gives no answer: {warm[0].error}")
        for round_, start in enumerate(range(warm_up, len(bodies[0]), concurrency)):
            numbers = range(start, min(start + concurrency, len(bodies[0])))
            for side in order if round_ % 2 == 0 else reversed(order):
                began = time.perf_counter()
                answers[side].extend(await ask(side, numbers, round_))
                busy[side].append(time.perf_counter() - began)
            say(numbers.stop)
    return tuple(Timed(answers=tuple(answers[side]), busy_s=tuple(busy[side])) for side in order)


def _body(served: Served, messages: Messages, max_tokens: int) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": messages, "temperature": 0.0, "max_tokens": max_tokens}
    return body | ({"chat_template": served.template} if served.template else {})


async def _answer(
    client: Any, served: Served, key: str, question: Mapping[str, Any], prompt: int, round_: int
) -> Answer:
    import httpx

    body = {**question, "model": served.model, "stream": True, "stream_options": {"include_usage": True}}
    began = time.perf_counter()
    first: float | None = None
    usage: dict[str, int] = {}
    ended = False
    error = ""
    try:
        headers = {"authorization": f"Bearer {key}"}
        async with client.stream("POST", f"{served.url}/chat/completions", json=body, headers=headers) as stream:
            if stream.status_code != 200:
                error = f"status {stream.status_code}"
            else:
                async for line in stream.aiter_lines():
                    if line == "data: [DONE]":
                        ended = True  # which some servers leave out after the finish reason
                    elif line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        choices = event.get("choices", [])
                        text = any(each["delta"].get("content") for each in choices)
                        ended = ended or any(each.get("finish_reason") for each in choices)
                        first = time.perf_counter() - began if text and first is None else first
                        usage = dict(event.get("usage") or usage)
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as failure:
        error = type(failure).__name__  # its words may quote the request
    if not error and not ended:
        error = "the stream broke off"
    elif not error and first is None:
        error = "an empty answer"
    seconds = time.perf_counter() - began
    return Answer(
        prompt=prompt,
        round=round_,
        seconds=seconds,
        first_token_s=first,
        tokens=usage.get("completion_tokens"),
        prompt_tokens=usage.get("prompt_tokens"),
        error=error,
    )
