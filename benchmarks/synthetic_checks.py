"""How often the checks of synthetic rows turn away texts that people wrote.

    python benchmarks/synthetic_checks.py --texts F.jsonl:FIELD --language en --sums G.jsonl:FIELD

Language: the share of texts, all in one language, that the check would call another one. Sums: those that are read, and
those that do not come out, printed to be judged by eye; marks of the form <<3*4=12>> are taken out first.
"""

import argparse
import re
import time
from pathlib import Path

from evals.stats import Score, wilson
from pipelines.stages.data.plain import rows, text_of
from pipelines.stages.data.synthetic.arithmetic import sums, wrong_sums
from resources.language import LangidDetector


def texts(place: str) -> list[str]:
    path, _, field = place.rpartition(":")
    return [text_of(Path(path), line, row, field) for line, row in rows(Path(path))]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--texts", required=True)
    options.add_argument("--language", required=True)
    options.add_argument("--sums", required=True)
    given = options.parse_args()

    detector, written = LangidDetector(), texts(given.texts)
    started = time.perf_counter()
    found = [detector.language(text) for text in written]
    wrong = [language not in (given.language, None) for language in found]
    share = wilson([Score(str(number), str(number), float(each)) for number, each in enumerate(wrong)])
    print(f"language: {sum(wrong)} of {len(found)} refused ({share.low:.2%} to {share.high:.2%}),", end=" ")
    print(f"{found.count(None)} not told, {(time.perf_counter() - started) / len(found) * 1e3:.2f} ms a text")

    answers = texts(given.sums)
    marked = sum(answer.count("<<") for answer in answers)
    plain = [re.sub(r"<<.*?>>", "", answer) for answer in answers]
    read = sum(len(sums(answer)) for answer in plain)
    print(f"sums: {read} read, {marked} marked, in {len(answers)} texts; not right:")
    for answer in plain:
        for line in answer.splitlines():
            if wrong_sums(line):
                print(f"  {line}")


if __name__ == "__main__":
    main()
