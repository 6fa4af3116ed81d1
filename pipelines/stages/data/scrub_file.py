"""``assay data scrub``: a file's rows without personal data, in batches, on as many processes as the engine has."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.errors import BadInput
from pipelines.stages.data.batches import batched
from pipelines.stages.data.item import Row
from pipelines.stages.data.plain import Report, rows, text_of, whole_file, write_report, write_row
from pipelines.stages.data.protocols import BatchEngine, Finding, PiiAnalyzer
from pipelines.stages.data.scrub_text import Operator, leaves, read_as, scrubbed

BATCH_ROWS = 256


@dataclass
class ScrubReport(Report):
    """``entities`` counts the findings by kind."""

    entities: Counter[str] = field(default_factory=Counter)
    rows_with_entities: int = 0

    def payload(self) -> dict[str, Any]:
        found = {"entities": dict(sorted(self.entities.items())), "rows_with_entities": self.rows_with_entities}
        return super().payload() | found


@dataclass(frozen=True)
class ScrubWork:
    """What a worker does with a batch of texts; sent to it once."""

    analyzer: PiiAnalyzer
    operator: Operator
    least: dict[str, float] | None = None
    key: bytes = field(default=b"", repr=False)

    def __call__(self, texts: list[str]) -> list[tuple[str, list[Finding]]]:
        split = [leaves(text) for text in texts]
        findings = self.analyzer.find([read_as(each) for each in split], self.least)
        both = zip(texts, split, findings, strict=True)
        return [scrubbed(text, each, found, self.operator, self.key) for text, each, found in both]


def scrub_file(
    source: Path,
    field: str,
    target: Path,
    engine: BatchEngine,
    work: ScrubWork,
    report: Path | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> ScrubReport:
    """Write each row of ``source`` to ``target``, in order, with the text in its field scrubbed and its findings in the
    new field ``entities``. Raises `BadInput` for a row that has such a field, or lacks the text; nothing is written
    then."""
    told = ScrubReport()
    waiting: list[list[Row]] = []

    def batches() -> Iterator[list[str]]:
        for batch in batched(rows(source), BATCH_ROWS):
            texts = [_text(source, line, row, field) for line, row in batch]
            waiting.append([row for _, row in batch])
            yield texts

    with whole_file(target) as out:
        for done in engine.map(work, batches()):
            for row, (text, findings) in zip(waiting.pop(0), done, strict=True):
                write_row(out, row | {field: text, "entities": [_entity(finding) for finding in findings]})
                told.rows_in += 1
                told.entities.update(finding.kind for finding in findings)
                told.rows_with_entities += bool(findings)
            progress(told.rows_in)
        write_report(report, told.payload())
    return told


def _text(source: Path, line: int, row: Row, field: str) -> str:
    if "entities" in row:
        raise BadInput(
            f"{source}, line {line + 1} has a field 'entities', which scrubbing would write over; rename it first"
        )
    return text_of(source, line, row, field)


def _entity(finding: Finding) -> dict[str, Any]:
    score = round(finding.score, 2)
    return {"entity_type": finding.kind, "start": finding.start, "end": finding.end, "score": score}
