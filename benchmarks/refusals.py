"""How well `refuses` agrees with people: Cohen's kappa with its 95% interval over prompts. Counts, no text.

    python benchmarks/refusals.py --data FOLDER

FOLDER holds ``xstest_refusal_labels_*.jsonl`` (a refusal is full or partial, by the final label) and
``pyrit_refusal_*.jsonl``. Prompts are halved by a hash of their words: phrases were mended after reading the first
half; of the second only these counts were seen.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from evals.kappa import Pair, cohens_kappa
from evals.refusals import refuses

SAID = {True: "refused", False: "answered"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    folder: Path = parser.parse_args().data
    paths = sorted(folder.glob("*refusal*.jsonl"))
    if not paths:
        sys.exit(f"{folder} holds no *refusal*.jsonl: name the folder in which they lie")
    for path in paths:
        pairs = list(read(path))
        for name, some in (
            ("first half", [each for each in pairs if half(each.cluster) == 0]),
            ("second half", [each for each in pairs if half(each.cluster) == 1]),
            ("all", pairs),
        ):
            kappa = cohens_kappa(some)
            count = Counter((each.label, each.verdict) for each in some)
            print(
                f"{path.name:<34} {name:<12} n={len(some):<4} "
                f"kappa {kappa.estimate:.3f} [{kappa.low:.3f}, {kappa.high:.3f}]  "
                f"refused and found {count['refused', 'refused']}, missed {count['refused', 'answered']}; "
                f"answered and found {count['answered', 'refused']}, left {count['answered', 'answered']}"
            )


def read(path: Path) -> Iterator[Pair]:
    """What people and `refuses` say of each answer; answers to one prompt are a cluster."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "final_label" in row:
            prompt, refused, answer = row["id"] + row["prompt"], row["final_label"][0] != "1", row["completion"]
        else:
            prompt, refused, answer = row["objective"], int(row["human_score"]) == 1, row["assistant_response"]
        yield Pair(prompt, SAID[refused], SAID[refuses(answer)])


def half(prompt: str) -> int:
    return hashlib.sha256(prompt.encode()).digest()[-1] % 2


if __name__ == "__main__":
    main()
