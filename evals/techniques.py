"""Four ways to the same answers: a plain prompt, worked examples, passages from the product's documents, fine-tuning.

All are asked as they would be served: the product's chat template, its tools and schema, greedily. Each is a suite
whose items were rewritten, asked of a subject, so that answers are kept as in any evaluation.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_contracts.errors import BadInput
from data_contracts.manifests import BaseManifest, ModelManifest
from data_contracts.records import Message
from evals.decoding import as_served, fair_rival
from evals.document import Document
from evals.question import QuestionItem
from evals.recommend import Technique
from evals.retrieval import with_passages
from evals.run import Subject
from evals.suite import CallItem, Suite, load_suite, read_items
from pipelines.recipes.product import Desk, Product

Item = CallItem | QuestionItem


class Put(NamedTuple):
    """A suite as one technique puts it, and who answers."""

    technique: Technique
    suite: Suite
    subject: Subject


def put(
    product: Product,
    base: BaseManifest,
    model: ModelManifest,
    suite: Suite,
    found: Mapping[str, Sequence[Document]],
    examples: Sequence[QuestionItem],
    folder: Path,
) -> list[Put]:
    """The techniques that apply to a suite; ``found`` holds the passages by item. Without worked examples for
    questions, ``shots`` would be the plain prompt and is left out. The rewritten items lie in ``folder``."""
    served, rival = as_served(product), fair_rival(product)
    if suite.free:
        served, rival = served.freed(), rival.freed()
    plain = Subject("prompt", base.digest, None, model.template, served)
    made = [Put("prompt", suite, plain)]
    if suite.asks == "product-calls":
        made.append(Put("shots", suite, plain._replace(name="shots", decoding=rival)))
    elif examples:
        shown = _rewritten(suite, folder / "shots.jsonl", lambda item: _after_examples(item, examples))
        made.append(Put("shots", shown, plain._replace(name="shots")))
    grounded = _rewritten(
        suite,
        folder / "retrieval.jsonl",
        lambda item: item.model_copy(update={"text": with_passages(found[item.id], item.text)}),
    )
    made.append(Put("retrieval", grounded, plain._replace(name="retrieval")))
    tuned = Subject("fine-tuned", model.weights, model.weights, model.template, served)
    return [*made, Put("fine-tuned", suite, tuned)]


def chat_items(suite: Suite) -> tuple[Item, ...]:
    return tuple(item for item in suite.items() if isinstance(item, CallItem | QuestionItem))


def load_asked(product: Product, desk: Desk) -> tuple[Suite, ...]:
    """The desk's suites. Raises `BadInput` for one that nothing can be put before."""
    suites = tuple(load_suite(product.file("suite", name)) for name in desk.asked)
    for suite in suites:
        if suite.lm_eval is not None or suite.asks == "passages":
            why = "has passages of its own" if suite.asks == "passages" else "is asked by lm-eval"
            raise BadInput(
                f"product {product.name}, desk: suite {suite.name} {why}, so that nothing goes before its questions: "
                "name suites of calls or of questions"
            )
    return suites


def load_examples(product: Product, desk: Desk, suites: Sequence[Suite]) -> tuple[QuestionItem, ...]:
    """Worked questions. Raises `BadInput` for one without an answer to show, and for one that a suite asks."""
    if not desk.examples:
        return ()
    path = product.file("documents", desk.examples)
    examples = read_items(path, QuestionItem)
    asked = {item.text for suite in suites for item in chat_items(suite)}
    for line, example in enumerate(examples, start=1):
        if not example.answers:
            raise BadInput(f"{path}, line {line}, field answers: an example shows the first of them: give one")
        if example.text in asked:
            raise BadInput(f"{path}, line {line}, field text: a suite asks this very question: write another example")
    return examples


def _after_examples(item: Item, examples: Sequence[QuestionItem]) -> Item:
    """Examples are turns between the system message, if there is one, and the rest."""
    if isinstance(item, CallItem):
        return item
    turns: list[Message] = []
    for example in examples:
        turns += [Message(role="user", content=example.text), Message(role="assistant", content=example.answers[0])]
    first = 1 if item.before and item.before[0].role == "system" else 0
    return item.model_copy(update={"before": (*item.before[:first], *turns, *item.before[first:])})


def _rewritten(suite: Suite, path: Path, change: Callable[[Item], Item]) -> Suite:
    """The same suite with changed items."""
    path.write_text("".join(f"{change(item).model_dump_json()}\n" for item in chat_items(suite)), encoding="utf-8")
    return suite.model_copy(update={"data": str(path), "data_digest": None, "transforms": ()})
