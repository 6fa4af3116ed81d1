"""Requests that are not passed on, and answers that are not given out, by what the operator's moderation endpoint flags
them for. Whoever was refused is told the category; no text is kept."""

import logging
from collections.abc import Mapping
from typing import Any

from data_contracts.errors import Unavailable
from pipelines.recipes.product import Filter, Product
from pipelines.stages.protocols import Moderator
from pipelines.stages.serve.errors import RETRY_AFTER, Denied

log = logging.getLogger(__name__)


class ContentFilter:
    def __init__(self, moderator: Moderator | None) -> None:
        self._moderator = moderator

    async def check_prompt(self, product: Product, asked: Mapping[str, Any]) -> None:
        """All that a client sent as messages, those of tools included. Raises `Denied`."""
        rule = product.serving.filter
        if rule is not None and rule.prompts:
            text = "\n".join(message["content"] for message in asked["messages"])
            if flags := await self._flags(rule, text):
                raise Denied(403, "prompt_filtered", f"the request was not passed on: {', '.join(flags)}")

    def holds(self, product: Product) -> bool:
        """Whether an answer is held back until it is whole."""
        return product.serving.filter is not None and product.serving.filter.answers

    async def check_answer(self, product: Product, text: str) -> None:
        """Raises `Denied`."""
        rule = product.serving.filter
        if rule is not None and rule.answers and (flags := await self._flags(rule, text)):
            raise Denied(403, "answer_filtered", f"the answer was not given out: {', '.join(flags)}")

    async def close(self) -> None:
        if self._moderator is not None:
            await self._moderator.close()

    async def _flags(self, rule: Filter, text: str) -> list[str]:
        try:
            if self._moderator is None:
                raise Unavailable("the product asks for a content filter, and ASSAY_FILTER_URL names none")
            return await self._moderator.flagged(text, rule.seconds) if text else []
        except Unavailable as error:
            if rule.when_down == "pass":
                log.warning("passed on without a look: %s", error)
                return []
            raise Denied(503, "filter_unavailable", str(error), {"retry-after": RETRY_AFTER}) from error
