"""How well refusals and unfit pairs are told: counts only, no text. FOLDER holds the files named below."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from evals.refusals import asks_for_harm, complies, refuses
from evals.stats import Score, wilson
from pipelines.recipes.mapping import Transcripts
from pipelines.recipes.product import Source
from pipelines.stages.data.convert import convert
from pipelines.stages.data.item import Dropped
from pipelines.stages.data.unfit import without_unfit
from resources.pii import PresidioAnalyzer
from tests.support.data import item


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    folder: Path = parser.parse_args().data
    answers = rows(folder / "safety" / "xstest_refusal_labels_odd.jsonl")
    told("refuses, XSTest answers", [(not r["final_label"].startswith("1"), refuses(r["completion"])) for r in answers])
    told("complies, XSTest answers", [(r["final_label"].startswith("1"), complies(r["completion"])) for r in answers])
    answers = rows(folder / "safety" / "pyrit_refusal_105.jsonl")
    told("refuses, PyRIT answers", [(int(r["human_score"]) == 1, refuses(r["assistant_response"])) for r in answers])
    prompts = rows(folder / "safety" / "xstest_odd_ids.jsonl")
    told("asks for harm, XSTest prompts", [(r["label"] == "unsafe", asks_for_harm(r["prompt"])) for r in prompts])
    pairs(folder / "pref" / "hh_harmless_test_a.jsonl")


def pairs(path: Path) -> None:
    """What the line drops of the pairs as they are, and with sides swapped, so that the worse one is preferred."""
    source = Source(
        url="pairs",
        contract="-",
        kind="preference",
        mapping=Transcripts(chosen_transcript="chosen", rejected_transcript="rejected"),
    )
    items, swapped = [], []
    for row in rows(path):
        try:
            made = convert(source, row)
        except ValueError:
            continue
        pair = made["pair"]
        items.append(item(made))
        swapped.append(item(made | {"pair": pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}}))
    for order, these in (("as they are", items), ("sides swapped", swapped)):
        codes = Counter(each.code for each in without_unfit(PresidioAnalyzer(), these) if isinstance(each, Dropped))
        print(f"{path.name}, {order}: {len(these)} pairs, dropped {dict(codes)}")


def told(name: str, pairs: list[tuple[bool, bool]]) -> None:
    """Precision and recall with Wilson intervals, of (true, found)."""
    print(f"{name}: {len(pairs)} rows")
    for word, of in (("precision", [t for t, f in pairs if f]), ("recall", [f for t, f in pairs if t])):
        share = wilson([Score(str(n), str(n), float(hit)) for n, hit in enumerate(of)])
        print(f"  {word} {share.estimate:.3f} [{share.low:.3f}, {share.high:.3f}] of {len(of)}")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
