"""The rows that training and evaluation read: chats, preference pairs. One row, one subject."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_contracts.frozen import Frozen

NO_TOOL = "none"
"""In an answer, where a tool's name would stand: words, no call."""


class ToolSpec(Frozen):
    """A tool the assistant may call. ``parameters`` maps argument name -> one-line description."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,63}$")
    description: str
    parameters: dict[str, str] = {}

    @field_validator("name")
    @classmethod
    def _is_a_tool(cls, name: str) -> str:
        if name == NO_TOOL:
            raise ValueError(f"no tool may be called {NO_TOOL!r}: an answer in words has that name in its place")
        return name


class Message(Frozen):
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class ChatExample(Frozen):
    """One conversation that ends with the assistant's answer. ``tools`` are rendered by the product's template."""

    messages: tuple[Message, ...] = Field(min_length=2)
    tools: tuple[ToolSpec, ...] = ()

    @model_validator(mode="after")
    def _ends_with_the_assistant(self) -> "ChatExample":
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's (it is what is learned)")
        return self

    def to_trainer(self) -> dict[str, Any]:
        return {
            "messages": [m.model_dump() for m in self.messages],
            "tools": [t.model_dump() for t in self.tools] or None,
        }


class PreferencePair(Frozen):
    """A prompt with the answer to prefer and the one to avoid."""

    prompt: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[ToolSpec, ...] = ()
    chosen: str = Field(min_length=1)
    rejected: str = Field(min_length=1)

    @model_validator(mode="after")
    def _sides_differ(self) -> "PreferencePair":
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same text")
        return self
