"""Any server that speaks OpenAI's chat completions. The client's own retries wait longer each time, and as long as the
server says, on 408, 409, 429, 5xx, time-outs and lost connections."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from data_contracts.digests import Digest
from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.data.synthetic.validate import Completion

_NO_KEY = "none"
"""Stands for no key: else the client would send the one of OpenAI in the environment to any server."""
_OPENAI = frozenset({"model", "messages", "temperature", "max_tokens", "seed", "response_format"})
STOP_AFTER = 8
"""Failures without an answer in between, after which the endpoint is taken to be out of order."""


class OpenAiEndpoint:
    """Implements `pipelines.stages.data.synthesize.Endpoint` and `evals.protocols.JudgeEndpoint`. ``url`` ends in
    ``/v1``; ``timeout`` in seconds a try. A ``patient`` one goes on however many answers fail, and gives none of them
    longer than all its tries; only a server that cannot be reached stops it."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        concurrency: int = 16,
        timeout: float = 300.0,
        retries: int = 5,
        patient: bool = False,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"endpoint {url}: is no address such as http://127.0.0.1:8000/v1")
        self.url = url
        self.key = key or _NO_KEY
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self.patient = patient

    def ask(
        self, bodies: Mapping[Digest, dict[str, Any]], answered: Callable[[Digest, Completion], None]
    ) -> dict[Digest, str]:
        return asyncio.run(self._ask_all(bodies, answered)) if bodies else {}

    async def _ask_all(
        self, bodies: Mapping[Digest, dict[str, Any]], answered: Callable[[Digest, Completion], None]
    ) -> dict[Digest, str]:
        import openai

        failed: dict[Digest, str] = {}
        in_a_row = 0
        limit = self.timeout * (1 + self.retries) if self.patient else None
        queue = iter(bodies.items())

        async def work(client: Any, turns: Iterator[tuple[Digest, dict[str, Any]]]) -> None:
            nonlocal in_a_row
            for digest, body in turns:
                try:
                    known = {name: value for name, value in body.items() if name in _OPENAI}
                    extra = {name: value for name, value in body.items() if name not in _OPENAI}
                    async with asyncio.timeout(limit):
                        completion = _completion(await client.chat.completions.create(**known, extra_body=extra))
                except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
                    raise Unavailable(
                        f"{self.url} refuses the request ({_words(error)}): check the model's name and the key"
                    ) from None
                except (openai.OpenAIError, ValueError, TimeoutError) as error:
                    failed[digest] = _why(error)
                    in_a_row += not self.patient or _unreachable(error)
                    if in_a_row >= STOP_AFTER:
                        kept = "" if self.patient else "what it answered is kept, "
                        raise Unavailable(
                            f"{self.url} failed {in_a_row} times in a row, at last: {_words(error)}; {kept}run the "
                            "same command again when it answers"
                        ) from None
                else:
                    in_a_row = 0
                    answered(digest, completion)

        async with openai.AsyncOpenAI(
            base_url=self.url, api_key=self.key, timeout=self.timeout, max_retries=self.retries
        ) as client:
            tasks = [asyncio.create_task(work(client, queue)) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return failed


def _completion(answer: Any) -> Completion:
    """Raises ``ValueError`` for an answer that is no chat completion."""
    try:
        choice = answer.choices[0]
        refused = bool(getattr(choice.message, "refusal", None))
        return Completion(str(choice.message.content or ""), "refusal" if refused else str(choice.finish_reason))
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError("the answer is no chat completion") from error


def _unreachable(error: Exception) -> bool:
    import openai

    return isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)


def _why(error: Exception) -> str:
    """Status or kind of a failure, for the report; the server's own words may quote the request."""
    status = getattr(error, "status_code", None)
    if status:
        return f"the endpoint answered with status {status}"
    return "the answer is no chat completion" if isinstance(error, ValueError) else type(error).__name__


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
