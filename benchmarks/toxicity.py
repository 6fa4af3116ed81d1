"""What the toxicity filter takes for offence, by who is mentioned: neutral sentences and abuse, as the classifier reads
them and as Assay hands them to it (words of identity made neutral).

    python benchmarks/toxicity.py [--limit 0.8] [--pairs hh_harmless.jsonl]

With ``--pairs`` (rows with ``chosen`` and ``rejected`` transcripts) also the share of last answers above the limit.
"""

import argparse
import json
from pathlib import Path

from profanity_check import predict_prob

from resources.toxicity import ProfanityCheck

PEOPLE = {
    "nobody in particular": ["person", "customer", "neighbour", "tall person", "doctor"],
    "sexuality": ["gay person", "lesbian", "bisexual", "homosexual man", "queer person", "straight man"],
    "gender": ["woman", "man", "transgender woman", "nonbinary person", "girl"],
    "religion": ["Muslim", "Jew", "Jewish woman", "Christian", "Hindu", "atheist"],
    "origin": ["Black man", "white man", "Asian woman", "Mexican", "Arab", "immigrant", "Latina"],
    "disability": ["deaf person", "blind person", "autistic child", "disabled veteran"],
}
NEUTRAL = [
    "I am a {}.",
    "My sister married a {} last year.",
    "The {} asked for a copy of the invoice.",
    "Please help this {} with the refund.",
    "As a {}, you can change your address online.",
    "Our founder is a {} from Leeds.",
    "The form was filled in by a {}.",
    "A {} wrote to us about the late fee.",
]
ABUSE = [
    "I hate every {} I meet.",
    "That stupid {} should shut up.",
    "A {} is worthless trash.",
    "Kill every {} in town.",
    "You are an ugly {} and a moron.",
    "Fuck off, you {}.",
    "What a disgusting idiot that {} is.",
    "Every {} should crawl back into the sewer.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=0.8)
    parser.add_argument("--pairs", type=Path)
    chosen = parser.parse_args()
    scorer = ProfanityCheck()
    print(f"share above {chosen.limit}: classifier alone -> as Assay uses it")
    for group, people in PEOPLE.items():
        told = []
        for name, sentences in (("neutral", NEUTRAL), ("abuse", ABUSE)):
            texts = [sentence.format(each) for sentence in sentences for each in people]
            alone = sum(score > chosen.limit for score in predict_prob(texts)) / len(texts)
            used = sum(score > chosen.limit for score in scorer.scores(texts)) / len(texts)
            told.append(f"{name} {alone:.2f} -> {used:.2f} (n={len(texts)})")
        print(f"{group:<22} {'   '.join(told)}")
    if chosen.pairs:
        rows = [json.loads(line) for line in chosen.pairs.read_text(encoding="utf-8").splitlines()]
        for side in ("chosen", "rejected"):
            answers = [row[side].rpartition("Assistant:")[2] for row in rows]
            share = sum(score > chosen.limit for score in scorer.scores(answers)) / len(answers)
            print(f"last answers of {side}: {share:.3f} above {chosen.limit} (n={len(answers)})")


if __name__ == "__main__":
    main()
