"""A file without the items of an evaluation set, apart from any product."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_contracts.errors import BadInput
from pipelines.stages.data.batches import batched
from pipelines.stages.data.contamination import SIMILARITY, Contamination
from pipelines.stages.data.plain import Report, rows, text_of, whole_file, write_report, write_row
from pipelines.stages.data.protocols import Embedder

_BATCH = 256


def decontaminate_file(
    source: Path,
    field: str,
    against: Path,
    against_field: str,
    target: Path,
    report: Path | None,
    embedder: Embedder | None = None,
    similarity: float = SIMILARITY,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Write the rows of ``source`` that hold no item of ``against`` to ``target``. Returns the report, which lists each
    hit with both texts. Without an embedder paraphrases are not looked for."""
    if not 0 < similarity <= 1:
        raise BadInput(f"the similarity {similarity} is not above 0 and at most 1")
    places, items = zip(
        *((line, text_of(against, line, row, against_field)) for line, row in rows(against)), strict=True
    )
    contamination = Contamination(items, embedder, similarity)
    told = Report()
    with whole_file(target) as handle:
        for batch in batched(rows(source, told if skip_bad else None), _BATCH):
            texts = [text_of(source, line, row, field) for line, row in batch]
            for (line, row), text, hit in zip(batch, texts, contamination.find(texts), strict=True):
                told.rows_in += 1
                if hit is None:
                    write_row(handle, row)
                else:
                    facts = {"match_row": places[hit.item], "score": round(hit.score, 4), "text": text}
                    told.drop(line, f"contaminated: {hit.how}", items[hit.item], **facts)
            progress(told.rows_in)
        found = told.payload()
        write_report(report, found)
    return found
