"""Ask only what was never asked. An answer is kept under the digest of all that decides it: artifact, base, the
question's bytes (template, tools, schema and decoding included) and the software that answers.

So an item that joins a suite costs its own answer, a scorer that changes costs none, and a crash loses only what was
under way.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import JsonValue

from data_contracts.digests import Digest, sha256_json
from evals.protocols import Answerer, Answers, Kept, Question

Progress = Callable[[int, int], None]
"""Gets how many are answered, kept ones included, and how many there are."""


class Respondent(NamedTuple):
    """Who answers. ``lock`` is what decides an answer beside artifact and question: software and its settings. ``open``
    starts, loads or connects, and is called only when there is something to ask."""

    artifact: Digest
    base: Digest
    lock: JsonValue
    open: Callable[[], Answerer]

    def key(self, question: JsonValue) -> Digest:
        return sha256_json({"artifact": self.artifact, "base": self.base, "lock": self.lock, "question": question})


class Answered(NamedTuple):
    """Texts by item; ``engine`` names what computed them; ``confidence`` (see `evals.protocols.Hears`) of those items
    of which it was told."""

    texts: dict[str, str]
    engine: str
    confidence: dict[str, float]


def ask(
    answers: Answers, who: Respondent, questions: Mapping[str, Question], progress: Progress, fresh: bool = False
) -> Answered:
    """The text of every item's answer, asked for or kept; each is kept as soon as it comes. ``fresh`` asks all again.

    Raises what the respondent raises; what was answered until then stays kept."""
    keys = {item: who.key(question) for item, question in questions.items()}
    known = {} if fresh else answers.get(keys.values())
    missing = {key: questions[item] for item, key in keys.items() if key not in known}
    total = len(known) + len(missing)
    progress(len(known), total)
    if missing:
        answerer = who.open()
        engine = answerer.engine()

        def keep(key: Digest, text: str, confidence: float | None = None) -> None:
            known[key] = Kept(text if confidence is None else [text, confidence], engine)
            answers.put(who.artifact, {key: known[key]})
            progress(len(known), total)

        answerer.chat(missing, keep)
    said = {item: _said(known[key].answer) for item, key in keys.items()}
    texts = {item: text for item, (text, _) in said.items()}
    return Answered(texts, engines(known), {item: sure for item, (_, sure) in said.items() if sure is not None})


def _said(answer: JsonValue) -> tuple[str, float | None]:
    match answer:
        case [str(text), float(confidence)]:
            return text, confidence
    return str(answer), None


def engines(kept: Mapping[Digest, Kept]) -> str:
    return ", ".join(sorted({each.engine for each in kept.values()}))
