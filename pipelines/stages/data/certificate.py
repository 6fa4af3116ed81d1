"""How much of the personal data of a labelled text a detector finds: precision, recall, F2 by entity, with intervals.

Counted in characters, as what is left of a name is still a name. A span's recall is the share of its characters that
are found under its kind; the interval (Wilson) is over spans, since the characters of a span are not independent.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.errors import BadInput, Refused
from data_contracts.policy import PiiRule
from evals.stats import Interval, Score, wilson
from pipelines.stages.data.plain import rows, text_of
from pipelines.stages.data.protocols import Finding, PiiAnalyzer

SPELLINGS = {
    **dict.fromkeys(("GPE", "LOC"), "LOCATION"),
    **dict.fromkeys(("ADDRESS",), "STREET_ADDRESS"),
    **dict.fromkeys(("DOMAIN_NAME",), "URL"),
    **dict.fromkeys(("ORG",), "ORGANIZATION"),
    **dict.fromkeys(("IBAN",), "IBAN_CODE"),
}
"""Other sets' names of the detector's own kinds."""

CANONICAL = SPELLINGS | dict.fromkeys(("ADDRESS", "STREET_ADDRESS", "ZIP_CODE"), "LOCATION") | {"URL_SECRET": "URL"}
"""Names that mean the same here, labelled ones and found ones: a street, a city and a post code are all a place, as one
label often holds them together. A name that is not listed stands for itself."""

_BETA = 2


class Labelled(NamedTuple):
    """A text and the spans of its personal data."""

    text: str
    spans: tuple[Finding, ...]


@dataclass(frozen=True)
class EntityScore:
    """``spans`` and ``characters`` are the labelled ones. Precision is that of the canonical kind; it and F2 are None
    where nothing was found. F2 is of the character counts, ``recall`` the mean over spans."""

    spans: int
    characters: int
    precision: float | None
    recall: Interval
    character_recall: float
    f2: float | None


@dataclass(frozen=True)
class Certificate:
    detector: str
    texts: int
    overall: EntityScore
    entities: dict[str, EntityScore]

    def payload(self) -> dict[str, Any]:
        def scored(score: EntityScore) -> dict[str, Any]:
            return asdict(score) | {"recall": score.recall._asdict()}

        kinds = {kind: scored(score) for kind, score in self.entities.items()}
        named = {"detector": self.detector, "texts": self.texts, "canonical": CANONICAL}
        return named | {"overall": scored(self.overall), "entities": kinds}


def read_labelled(path: Path) -> list[Labelled]:
    """Rows {text, spans: [{entity_type, start, end}]}; ``full_text``, ``start_position`` and ``end_position`` are read
    too (presidio-research). Raises `BadInput` for a span that is none."""
    labelled = []
    for line, row in rows(path):
        text = text_of(path, line, row, "full_text" if "full_text" in row else "text")
        spans = row.get("spans")
        if not isinstance(spans, list):
            raise BadInput(f"{path}, line {line + 1}: the field 'spans' is no list of {{entity_type, start, end}}")
        labelled.append(Labelled(text, tuple(_span(path, line, text, span) for span in spans)))
    return labelled


def certify(
    labelled: Sequence[Labelled], analyzer: PiiAnalyzer, least: Mapping[str, float] | None = None
) -> Certificate:
    """Measure a detector, or, with ``least``, only those of its kinds and scores."""
    return measure(labelled, analyzer.find([each.text for each in labelled], least), analyzer.identity)


def require(certificate: Certificate, rule: PiiRule) -> None:
    """Raises `Refused` naming the first kind of which too little is found, or which is not labelled at all."""
    for kind, least in rule.min_recall.items():
        score = certificate.entities.get(kind)
        if score is None:
            raise Refused(f"{rule.labelled} labels no {kind}, of which the data policy demands a recall: label some")
        if score.recall.estimate < least:
            low, high = score.recall.low, score.recall.high
            raise Refused(
                f"the detector finds {score.recall.estimate:.3f} of {kind} in {rule.labelled} (95 % interval {low:.3f} "
                f"to {high:.3f}, n={score.spans}), the data policy demands {least:g}: better the recogniser "
                "(resources/pii_patterns.py), or change min_recall and answer for it"
            )


def measure(
    labelled: Sequence[Labelled],
    findings: Sequence[Sequence[Finding]],
    detector: str,
    names: Mapping[str, str] = CANONICAL,
) -> Certificate:
    """Hold findings against labels, of which ``names`` says what means the same. Raises `BadInput` when nothing is
    labelled."""

    def canonical(kind: str) -> str:
        return names.get(kind, kind)

    shares: dict[str, list[Score]] = defaultdict(list)
    found: Counter[str] = Counter()
    right: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for number, (example, here) in enumerate(zip(labelled, findings, strict=True)):
        marked = [_marks(example.text, spans, names) for spans in (example.spans, here)]
        for labels, kinds in zip(*marked, strict=True):
            for kind in kinds:
                found[kind] += 1
                right[kind] += kind in labels
        for place, span in enumerate(example.spans):
            characters = range(span.start, span.end)
            covered = sum(canonical(span.kind) in marked[1][at] for at in characters)
            shares[span.kind].append(Score(f"{number}.{place}", str(number), covered / len(characters)))
            hit[span.kind] += covered
            size[span.kind] += len(characters)
    if not shares:
        raise BadInput("nothing is labelled: there is nothing to measure")
    entities = {
        kind: _score(shares[kind], hit[kind], size[kind], right[canonical(kind)], found[canonical(kind)])
        for kind in sorted(shares)
    }
    everything = [score for scores in shares.values() for score in scores]
    overall = _score(everything, hit.total(), size.total(), right.total(), found.total())
    return Certificate(detector, len(labelled), overall, entities)


def _score(shares: list[Score], hit: int, size: int, right: int, found: int) -> EntityScore:
    precision, recall = (right / found if found else None), hit / size
    f2 = None
    if precision is not None:
        weighted = _BETA**2 * precision + recall
        f2 = (1 + _BETA**2) * precision * recall / weighted if weighted else 0.0
    return EntityScore(len(shares), size, precision, wilson(shares), recall, f2)


def _marks(text: str, spans: Sequence[Finding], names: Mapping[str, str]) -> list[set[str]]:
    """The canonical kinds over each character."""
    marks: list[set[str]] = [set() for _ in text]
    for span in spans:
        for at in range(span.start, span.end):
            marks[at].add(names.get(span.kind, span.kind))
    return marks


def _span(path: Path, line: int, text: str, span: Any) -> Finding:
    values = span if isinstance(span, dict) else {}
    kind = values.get("entity_type")
    start = values.get("start", values.get("start_position"))
    end = values.get("end", values.get("end_position"))
    if not isinstance(kind, str) or type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise BadInput(
            f"{path}, line {line + 1}: {span!r} is no span of its text: it needs entity_type, and start and end (end "
            "after start, within the text)"
        )
    return Finding(start, end, kind)
