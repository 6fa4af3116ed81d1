"""How much contamination is found: verbatim leaks, paraphrases, and how many clean rows are taken for either.

    python benchmarks/decontaminate.py --data FOLDER

FOLDER holds dedupe/math_train_mixed_leaks.jsonl (``instruction``, ``leaked_test_items``) and
dedupe/math_tests_for_leaks.jsonl (``instruction``); dedupe/*_rephrase_*.jsonl (``original`` is the evaluation set,
``rephrase`` the training rows); and sft/gsm8k_train_2k.jsonl (``question``) as clean rows.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from evals.stats import Score, wilson
from pipelines.stages.data.contamination import SIMILARITY, Contamination, Hit
from resources.embedding import SentenceEmbedder

THRESHOLDS = (0.6, 0.63, 0.65, SIMILARITY, 0.7, 0.73)
LOWEST = 0.55


def read(path: Path, field: str) -> list[str]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line)[field] for line in lines]


def share(found: Sequence[bool]) -> str:
    rate = wilson([Score(item=str(row), cluster=str(row), value=float(hit)) for row, hit in enumerate(found)])
    return f"{sum(found)}/{len(found)} = {rate.estimate:.4f} [{rate.low:.4f}, {rate.high:.4f}]"


def over(hits: Sequence[Hit | None], threshold: float) -> list[bool]:
    return [hit is not None and (hit.how == "verbatim" or hit.score >= threshold) for hit in hits]


def leaks(folder: Path, embedder: SentenceEmbedder) -> None:
    rows = read(folder / "math_train_mixed_leaks.jsonl", "instruction")
    truth = [bool(items) for items in read(folder / "math_train_mixed_leaks.jsonl", "leaked_test_items")]
    items = read(folder / "math_tests_for_leaks.jsonl", "instruction")
    for title, contamination in (
        ("words", Contamination(items)),
        ("words and meaning", Contamination(items, embedder)),
    ):
        started = time.monotonic()
        found = [hit is not None for hit in contamination.find(rows)]
        seconds = time.monotonic() - started
        print(f"exact leaks by {title}, {len(rows)} rows in {seconds:.1f} s")
        print(f"  recall    {share([hit for hit, leak in zip(found, truth, strict=True) if leak])}")
        print(f"  precision {share([leak for hit, leak in zip(found, truth, strict=True) if hit])}", flush=True)


def paraphrases(path: Path, clean: list[str], embedder: SentenceEmbedder) -> None:
    originals = read(path, "original")
    contamination = Contamination(originals, embedder, LOWEST)
    found = contamination.find(read(path, "rephrase"))
    verbatim = Contamination(originals).find(clean)
    really = [text for text, hit in zip(clean, verbatim, strict=True) if hit is None]
    false = contamination.find(really)
    print(f"{path.stem}: {len(clean) - len(really)} of the clean rows hold an item verbatim and are left out")
    for threshold in THRESHOLDS:
        print(f"  {threshold:.2f}  recall {share(over(found, threshold))}  false {share(over(false, threshold))}")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    embedder = SentenceEmbedder()
    leaks(folder / "dedupe", embedder)
    clean = read(folder / "sft" / "gsm8k_train_2k.jsonl", "question")
    for path in sorted((folder / "dedupe").glob("*_rephrase_*.jsonl")):
        paraphrases(path, clean, embedder)


if __name__ == "__main__":
    main()
