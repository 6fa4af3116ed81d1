"""What `assay data deduplicate --meaning` finds of copies in other words, and what it wrongly takes for one.

    python benchmarks/meaning.py [--data FOLDER] [--index 100000]

Pairs of our own by kind lie in meaning_pairs.txt: "same" is to be found, every other kind is not; those called "later"
were written after most of the rules. FOLDER holds dedupe/gsm8k_rephrase_even.jsonl (``original``, ``rephrase``),
sft/gsm8k_train_2k.jsonl (``question``) and, with labels, sft/banking77_train.jsonl, sft/clinc150_train.jsonl and
sft/bitext_customer_support_intents.jsonl: a row that goes out for one of another label is probably wrong. ``--index``
compares that many random vectors, without a model.
"""

import argparse
import json
import re
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evals.stats import Score, wilson
from pipelines.stages.data.deduplicate import THRESHOLD
from pipelines.stages.data.meaning import Meaning
from pipelines.stages.data.near import copies
from pipelines.stages.data.wording import says_the_same
from resources.embedding import SentenceEmbedder

LEVELS = (0.8, 0.85, 0.9, 0.95)


def read(path: Path, *fields: str) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8") as lines:
        return [tuple(json.loads(line)[field] for field in fields) for line in lines]


def share(found: Sequence[bool]) -> str:
    rate = wilson([Score(item=str(row), cluster=str(row), value=float(hit)) for row, hit in enumerate(found)])
    return f"{sum(found)}/{len(found)} = {rate.estimate:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def pairs(title: str, texts: Sequence[tuple[str, str]], embedder: SentenceEmbedder) -> None:
    """How many of the pairs are found: by the cosine alone, and with what must agree."""
    cosine = (embedder.embed([one for one, _ in texts]) * embedder.embed([other for _, other in texts])).sum(axis=1)
    same = [says_the_same(one, other) for one, other in texts]
    for level in LEVELS:
        alone = [value >= level for value in cosine]
        both = [near and agree for near, agree in zip(alone, same, strict=True)]
        print(f"  {title:<18} {level:.2f}  cosine alone {share(alone):<36} found {share(both)}", flush=True)


def rows(title: str, texts: Sequence[tuple[str, ...]], embedder: SentenceEmbedder, level: float) -> None:
    """What goes out of a set, and how many of that for a row of another label."""
    said = [(each[0], each[0]) for each in texts]
    started = time.process_time()
    found = list(copies(said, THRESHOLD, Meaning(embedder, level)))
    seconds = time.process_time() - started
    by = Counter(copy.how for copy in found if copy)
    wrong = [
        (texts[number], texts[copy.survivor])
        for number, copy in enumerate(found)
        if copy and copy.how == "semantic" and texts[number][1:] != texts[copy.survivor][1:]
    ]
    print(f"{title}: {len(texts)} rows, {dict(by)}, {len(wrong)} semantic for another label, {seconds:.0f} CPU s")
    for gone, survivor in wrong[:5]:
        print(f"    {gone} -> {survivor}", flush=True)


class Random:
    """Random directions: nothing is near, so that every row stays and is compared with all before it."""

    identity = "random"

    def __init__(self) -> None:
        self._draw = np.random.default_rng(7)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._draw.standard_normal((len(texts), 384), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def index(count: int) -> None:
    texts = (f"word{number} and word{number * 7}" for number in range(count))
    started = time.process_time()
    stay = sum(copy is None for copy in copies(((e, e) for e in texts), 1.0, Meaning(Random(), 0.9)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"index: {count} rows, {stay} stay, {time.process_time() - started:.0f} CPU s, peak {peak:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--index", type=int)
    chosen = parser.parse_args()
    if chosen.index:
        index(chosen.index)
        return
    embedder = SentenceEmbedder()
    kinds: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in Path(__file__).with_name("meaning_pairs.txt").read_text().splitlines():
        kind, one, other = line.split(" | ")
        kinds[kind].append((one, other))
    for kind, texts in kinds.items():
        pairs(kind, texts, embedder)
    if chosen.data:
        rephrased = read(chosen.data / "dedupe" / "gsm8k_rephrase_even.jsonl", "original", "rephrase")
        asked = [(one, re.split(r"\s*Answer:", two)[0].removeprefix("Question:").strip()) for one, two in rephrased]
        pairs("GSM8K rephrased", asked, embedder)
        sft = chosen.data / "sft"
        rows("GSM8K train", read(sft / "gsm8k_train_2k.jsonl", "question"), embedder, 0.9)
        rows("Banking77 train", read(sft / "banking77_train.jsonl", "text", "category"), embedder, 0.9)
        bitext = read(sft / "bitext_customer_support_intents.jsonl", "utterance", "intent")
        rows("Bitext", bitext, embedder, 0.9)
        rows("CLINC150 train", read(sft / "clinc150_train.jsonl", "text", "intent"), embedder, 0.9)


if __name__ == "__main__":
    main()
