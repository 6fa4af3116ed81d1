"""Passages for a question, found among a product's documents by likeness of meaning."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from data_contracts.errors import BadInput
from evals.document import Document
from evals.protocols import Embeds
from evals.suite import read_items

_DIGITS = 6
"""Of a likeness. Beyond them it depends on what else is in the batch."""


def read_documents(path: Path, as_of: date) -> tuple[Document, ...]:
    """Raises `BadInput` that names file, line and field, and what to do; for days after ``as_of`` too."""
    documents = read_items(path, Document)
    for line, document in enumerate(documents, start=1):
        last = max((document.written, *document.changed))
        if last > as_of:
            field = "changed" if document.changed else "written"
            raise BadInput(
                f"{path}, line {line}, field {field}: {last} is after {as_of}, the day up to which changes are told: "
                "take it out, or move `as_of` in the product's desk section"
            )
    return documents


def nearest(
    embedder: Embeds, documents: Sequence[Document], questions: Sequence[str], count: int
) -> list[tuple[Document, ...]]:
    """The ``count`` documents most like each question (cosine of embeddings), the likest first; of equals the one
    whose id comes first."""
    import numpy as np

    if not questions:
        return []
    ordered = sorted(documents, key=lambda document: document.id)
    vectors = embedder.embed([document.text for document in ordered])
    likeness = np.round(embedder.embed(questions) @ vectors.T, _DIGITS)
    ranks = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    return [tuple(ordered[place] for place in row) for row in ranks]


def with_passages(found: Sequence[Document], question: str) -> str:
    """What is asked in place of the question: passages first, the question last."""
    passages = "\n".join(f"[{number}] {document.text}" for number, document in enumerate(found, start=1))
    return f"These passages may help:\n{passages}\n\n{question}"
