"""Metrics of ragas: judge-free ones, and those that a judge model answers for. The import of ragas takes seconds, so it
happens at the first score; its telemetry is off."""

import asyncio
import logging
import os
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from data_contracts.errors import Unavailable
from evals.protocols import Embeds, JudgeEndpoint

if TYPE_CHECKING:
    from ragas.embeddings.base import BaseRagasEmbedding

Judged = Literal["faithfulness", "answer_relevancy", "context_precision", "context_recall"]
JUDGED: dict[Judged, tuple[str, ...]] = {
    "faithfulness": ("question", "response", "context"),
    "answer_relevancy": ("question", "response"),
    "context_precision": ("question", "reference", "context"),
    "context_recall": ("question", "reference", "context"),
}
"""Metrics that ask a judge, and the fields that each reads."""
JUDGE_FREE = ("rouge_l", "chrf", "semantic_similarity")
_ARGUMENTS = {
    "question": "user_input",
    "response": "response",
    "reference": "reference",
    "context": "retrieved_contexts",
}
_RETRIES = 1
"""Times that an answer of the wrong form is asked for again, and a request that got none."""


def tool_call_accuracy(called: tuple[str, dict[str, str]], expected: tuple[str, dict[str, str]]) -> float:
    """Share of the expected arguments given, if the tool is right; else 0. ``called``: (tool, arguments)."""
    _unwatched()
    from ragas.messages import AIMessage, ToolCall
    from ragas.metrics.collections import ToolCallAccuracy

    answer = AIMessage(content="", tool_calls=[ToolCall(name=called[0], args=called[1])])
    reference = ToolCall(name=expected[0], args=expected[1])
    return float(asyncio.run(ToolCallAccuracy().ascore([answer], [reference])).value)


def judge_free(metric: str, response: str, reference: str, embedder: Embeds) -> float:
    """How near an answer is to the reference: by longest common subsequence (ROUGE-L, F1), by character n-grams (chrF)
    or by meaning (cosine of embeddings, 0 where it is negative). ``metric`` is one of `JUDGE_FREE`; an empty answer
    scores 0."""
    if not response.strip():
        return 0.0
    _unwatched()
    from ragas.metrics import collections

    if metric == "rouge_l":
        scorer: Any = collections.RougeScore(rouge_type="rougeL", mode="fmeasure")
    elif metric == "chrf":
        scorer = collections.CHRFScore()
    else:
        scorer = collections.SemanticSimilarity(_embeddings(embedder))
    found = asyncio.run(scorer.ascore(reference=reference, response=response))
    return min(1.0, max(0.0, float(found.value)))


def judged(
    metric: Judged,
    endpoint: JudgeEndpoint,
    model: str,
    decoding: Mapping[str, Any],
    items: Mapping[str, Mapping[str, str | tuple[str, ...]]],
    embedder: Embeds | None,
    progress: Callable[[int], None],
) -> dict[str, float | str]:
    """The score of each item as ragas computes it, NaN included, or the reason why there is none. An item has failed
    when it takes longer than the endpoint's time-out for each question that ragas asks about it. Raises `Unavailable`
    where no item could be asked, or the endpoint refuses model or key."""
    _unwatched()
    return asyncio.run(_judged(metric, endpoint, model, decoding, items, embedder, progress))


async def _judged(
    metric: Judged,
    endpoint: JudgeEndpoint,
    model: str,
    decoding: Mapping[str, Any],
    items: Mapping[str, Mapping[str, str | tuple[str, ...]]],
    embedder: Embeds | None,
    progress: Callable[[int], None],
) -> dict[str, float | str]:
    import openai
    from instructor.core.exceptions import InstructorError
    from ragas.llms import llm_factory

    refused = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
    turns = asyncio.Semaphore(endpoint.concurrency)
    scores: dict[str, float | str] = {}
    lost: list[str] = []

    async with openai.AsyncOpenAI(
        base_url=endpoint.url, api_key=endpoint.key, timeout=endpoint.timeout, max_retries=_RETRIES
    ) as client:
        llm = llm_factory(model, client=client, max_retries=_RETRIES, **decoding)
        score = _scorer(metric, llm, embedder)

        async def work(item: str, fields: Mapping[str, str | tuple[str, ...]]) -> None:
            async with turns:
                try:
                    async with asyncio.timeout(_questions(metric, fields) * endpoint.timeout):
                        scores[item] = await score(fields)
                except (openai.OpenAIError, InstructorError, TimeoutError, ValueError) as error:
                    cause = _cause(error)
                    if isinstance(cause, refused):
                        raise Unavailable(
                            f"{endpoint.url} refuses the request: check the model's name and the key"
                        ) from None
                    if isinstance(cause, openai.APIConnectionError) and not isinstance(cause, openai.APITimeoutError):
                        lost.append(item)
                    scores[item] = _why(cause)
            progress(len(scores))

        try:
            async with asyncio.TaskGroup() as group:
                for item, fields in items.items():
                    group.create_task(work(item, fields))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
    if lost and len(lost) == len(items):
        raise Unavailable(f"{endpoint.url} cannot be reached")
    return {item: scores[item] for item in items}


def _scorer(
    metric: Judged, llm: Any, embedder: Embeds | None
) -> Callable[[Mapping[str, str | tuple[str, ...]]], Awaitable[float]]:
    from ragas.metrics import collections

    if metric == "answer_relevancy":
        if embedder is None:
            raise ValueError("answer_relevancy compares embeddings: it needs an embedder")
        asked: Any = collections.AnswerRelevancy(llm=llm, embeddings=_embeddings(embedder))
    elif metric == "faithfulness":
        asked = collections.Faithfulness(llm=llm)
    elif metric == "context_precision":
        asked = collections.ContextPrecision(llm=llm)
    else:
        asked = collections.ContextRecall(llm=llm)

    async def score(fields: Mapping[str, str | tuple[str, ...]]) -> float:
        given = {_ARGUMENTS[field]: fields[field] for field in JUDGED[metric]}
        if "retrieved_contexts" in given:
            contexts = given["retrieved_contexts"]
            given["retrieved_contexts"] = [contexts] if isinstance(contexts, str) else list(contexts)  # type: ignore[assignment]
        return float((await asked.ascore(**given)).value)

    return score


def _questions(metric: Judged, fields: Mapping[str, str | tuple[str, ...]]) -> int:
    """How many questions ragas asks one after the other about one item."""
    contexts = fields.get("context", "")
    return {
        "faithfulness": 2,
        "answer_relevancy": 3,
        "context_precision": 1 if isinstance(contexts, str) else len(contexts),
        "context_recall": 1,
    }[metric]


def _embeddings(embedder: Embeds) -> "BaseRagasEmbedding":
    """Our embedder in the shape that ragas checks for."""
    from ragas.embeddings.base import BaseRagasEmbedding

    class Packaged(BaseRagasEmbedding):  # type: ignore[misc]  # ragas checks for its base
        def embed_text(self, text: str, **more: Any) -> list[float]:
            return [float(value) for value in embedder.embed([text])[0]]

        async def aembed_text(self, text: str, **more: Any) -> list[float]:
            return self.embed_text(text)

        async def aembed_texts(self, texts: Sequence[str], **more: Any) -> list[list[float]]:
            return [[float(value) for value in row] for row in embedder.embed(list(texts))]

    return Packaged()


def _unwatched() -> None:
    """No telemetry, and no log of answers that do not fit: instructor quotes them."""
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    logging.getLogger("instructor").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # ragas leaves open the file with its user's id, read once
        from ragas._analytics import get_userid

        get_userid()


def _why(cause: BaseException) -> str:
    """Never the library's own words: they quote the answer."""
    import openai

    status = getattr(cause, "status_code", None)
    if status:
        return f"the endpoint answered with status {status}"
    return type(cause).__name__ if isinstance(cause, openai.OpenAIError | TimeoutError) else "an answer in another form"


def _cause(error: BaseException) -> BaseException:
    """What a wrapper around an error of the client was raised for; instructor wraps the last of its tries."""
    import openai

    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        if isinstance(each, openai.OpenAIError | TimeoutError):
            return each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
    return error
