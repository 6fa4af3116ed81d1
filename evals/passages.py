"""A question that is to be answered from passages (RAG), and what a good answer says."""

from pydantic import Field

from data_contracts.frozen import Frozen

PROMPT = "Answer the question from the passages, in one or two sentences. If they do not say it, say so."


class PassageItem(Frozen):
    """``contexts`` are the passages that were found for the question, best first."""

    id: str
    cluster: str
    text: str = Field(min_length=1)
    contexts: tuple[str, ...] = Field(min_length=1)
    reference: str = Field(min_length=1)

    def turns(self) -> list[dict[str, str]]:
        """The message to send: the task, the passages, the question."""
        return [{"role": "user", "content": f"{PROMPT}\n\n{self.said()}"}]

    def said(self) -> str:
        """All that the one who answers was told, less the task."""
        passages = [f"[{number}] {text}" for number, text in enumerate(self.contexts, start=1)]
        return "\n\n".join([*passages, f"Question: {self.text}"])
