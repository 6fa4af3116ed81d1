"""Judge-free metrics of ragas. Its import takes seconds, so it happens at the first score."""

import asyncio
import os


def tool_call_accuracy(called: tuple[str, dict[str, str]], expected: tuple[str, dict[str, str]]) -> float:
    """Share of the expected arguments given, if the tool is right; else 0. ``called``: (tool, arguments)."""
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    from ragas.messages import AIMessage, ToolCall
    from ragas.metrics.collections import ToolCallAccuracy

    answer = AIMessage(content="", tool_calls=[ToolCall(name=called[0], args=called[1])])
    reference = ToolCall(name=expected[0], args=expected[1])
    return float(asyncio.run(ToolCallAccuracy().ascore([answer], [reference])).value)
