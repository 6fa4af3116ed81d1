"""Any server that speaks OpenAI's moderations: what it flags a text for."""

import os

import httpx
from pydantic import BaseModel, ValidationError

from data_contracts.errors import BadInput, Unavailable


class _Result(BaseModel):
    flagged: bool
    categories: dict[str, bool | None] = {}


class _Answer(BaseModel):
    results: list[_Result]


class ModerationEndpoint:
    """Implements `pipelines.stages.protocols.Moderator`. ``url`` ends in ``/v1``."""

    def __init__(self, url: str, model: str = "", key: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"ASSAY_FILTER_URL {url}: is no address such as http://127.0.0.1:8000/v1")
        self.url, self.model = f"{url.rstrip('/')}/moderations", model
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(headers=headers, trust_env=False)

    async def flagged(self, text: str, seconds: float) -> list[str]:
        body = {"input": text} | ({"model": self.model} if self.model else {})
        try:
            got = await self._client.post(self.url, json=body, timeout=seconds)
            got.raise_for_status()
            results = _Answer.model_validate_json(got.content).results
        except httpx.HTTPStatusError as error:
            raise Unavailable(f"the content filter answered with status {error.response.status_code}") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"the content filter cannot be asked ({type(error).__name__})") from None
        except ValidationError:
            raise Unavailable("the content filter's answer is no moderation") from None
        if not results:
            raise Unavailable("the content filter's answer is no moderation")
        named = sorted({name for each in results for name, found in each.categories.items() if found})
        return named or ["flagged"] * any(each.flagged for each in results)

    async def close(self) -> None:
        await self._client.aclose()


def open_moderator(url: str, model: str, key_env: str) -> ModerationEndpoint | None:
    """``None`` without an address. Raises `BadInput` for a key that is not there."""
    if not url:
        return None
    if key_env and not os.environ.get(key_env):
        raise BadInput(f"the filter's key is not in the environment variable {key_env} (ASSAY_FILTER_KEY_ENV): set it")
    return ModerationEndpoint(url, model, os.environ[key_env] if key_env else "")
