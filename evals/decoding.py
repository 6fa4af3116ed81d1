"""How an answer is asked for: as it is served, under a JSON schema that admits only valid answers. The base gets worked
shots besides, as a fair rival deserves."""

from data_contracts.digests import Digest, hex_of, sha256_file, sha256_json
from data_contracts.frozen import Frozen
from data_contracts.store import ArtifactStore
from evals import answers
from evals.passages import PassageItem
from evals.protocols import Question
from evals.question import QuestionItem
from evals.suite import CallItem, read_items
from pipelines.recipes.product import ROOT, Product

SHOTS = ROOT / "evals" / "goldens" / "shots.jsonl"
SHOT_REPLY = "I can only help with billing."
SEED = 7


class Decoding(Frozen):
    """Greedy unless ``temperature`` is above 0: then ``seed`` decides too. ``shots`` names the file of worked examples,
    if any are shown; ``free`` lets anything be written, where else a JSON schema admits only valid answers."""

    max_tokens: int
    temperature: float = 0.0
    seed: int = SEED
    shots: Digest | None = None
    free: bool = False

    def freed(self) -> "Decoding":
        return self.model_copy(update={"free": True})

    def sampled(self, temperature: float, seed: int) -> "Decoding":
        return self.model_copy(update={"temperature": temperature, "seed": seed})

    def greedy(self) -> "Decoding":
        return self.sampled(0.0, SEED)

    def question(self, template: str, item: CallItem | QuestionItem | PassageItem) -> Question:
        """Body of a chat completion under this template (empty: the model's own); of a `CallItem` with its tools on
        offer, after the shots."""
        body: Question = {
            "messages": [*(few_shots(item.tools) if self.shots and isinstance(item, CallItem) else []), *item.turns()],
            "temperature": self.temperature,
            "seed": self._seed_of(item.id),
            "max_tokens": self.max_tokens,
        }
        if template:
            body["chat_template"] = template
        if isinstance(item, CallItem):
            body["chat_template_kwargs"] = {"assay_tools": [tool.model_dump() for tool in item.offered()]}
            if not self.free:
                body["structured_outputs"] = answers.constraint(item.offered(), self.max_tokens)
        return body

    def _seed_of(self, item: str) -> int:
        """When sampled, each item draws its own numbers: with the same ones, all answers would lean one way."""
        return int(hex_of(sha256_json([self.seed, item]))[:7], 16) if self.temperature else self.seed


def as_served(product: Product) -> Decoding:
    return Decoding(max_tokens=product.serving.max_tokens)


def fair_rival(product: Product) -> Decoding:
    return Decoding(max_tokens=product.serving.max_tokens, shots=sha256_file(SHOTS))


def template_text(store: ArtifactStore, product: Product, digest: Digest) -> str:
    """The product's file while it still has this digest, else the copy kept in the store."""
    data = product.file("template", product.template).read_bytes()
    return (data if store.put_bytes(data) == digest else store.get_bytes(digest)).decode()


def few_shots(tools: tuple[str, ...]) -> list[dict[str, str]]:
    """Worked examples as turns of the conversation: one that is answered in words, then one for each of the first
    three tools on offer."""
    words = [shot for shot in read_items(SHOTS, CallItem) if shot.expect != "call"]
    calls = {shot.tool: shot for shot in read_items(SHOTS, CallItem)}
    turns: list[dict[str, str]] = []
    for shot in [*words, *(calls[tool] for tool in tools[:3])]:
        answer = answers.call(shot.tool, shot.arguments or {}) if shot.tool else answers.words(SHOT_REPLY)
        turns += [{"role": "user", "content": shot.text}, {"role": "assistant", "content": answer}]
    return turns
