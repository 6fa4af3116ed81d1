"""Offensive language by a linear classifier that a package carries (alt-profanity-check, MIT): no network, 20,000
texts a second. It takes words of identity for offence, so it reads texts with such words made neutral; what was
measured stands in docs/benchmarks.md.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from data_contracts.digests import sha256_file

_IDENTITY = re.compile(
    r"\b(?:gays?|lesbians?|bisexuals?|homosexuals?|queers?|straight|trans(?:gender|sexual)?|nonbinary|"
    r"women|woman|men|man|girls?|boys?|ladies|lady|muslims?|islamic|jews?|jewish|christians?|catholics?|hindus?|"
    r"buddhists?|sikhs?|atheists?|blacks?|whites?|asians?|african|arabs?|mexicans?|latin[oax]s?|hispanics?|"
    r"immigrants?|refugees?|foreigners?|deaf|blind|autistic|disabled|old|elderly)\b",
    re.IGNORECASE,
)


class ProfanityCheck:
    known_biases = (
        "It reads English only. It knows swearing and abuse, and misses threats and contempt in polite words, nearly "
        "half of abuse in all. It takes words of identity, those of sexuality above all, for offence: it reads texts "
        "with such words made neutral, as far as its list of them goes."
    )

    @cached_property
    def identity(self) -> str:
        from importlib.metadata import version

        packages = ("alt-profanity-check", "scikit-learn")
        return " ".join([sha256_file(Path(__file__)), *(f"{package}=={version(package)}" for package in packages)])

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Probability, from 0 to 1, that each text offends; words of identity count for nothing."""
        if not texts:
            return []
        from profanity_check import predict_prob

        return [float(score) for score in predict_prob([_IDENTITY.sub("person", text) for text in texts])]
