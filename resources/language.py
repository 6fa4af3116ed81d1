"""The language of a short text: py3langid, naive Bayes over byte n-grams (Lui & Baldwin 2012), model in the package."""

from functools import cached_property
from importlib.metadata import version
from typing import Any


class LangidDetector:
    """Implements `pipelines.stages.data.protocols.LanguageDetector`."""

    @cached_property
    def _identifier(self) -> Any:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    identity = f"py3langid {version('py3langid')}"

    @cached_property
    def languages(self) -> frozenset[str]:
        return frozenset(self._identifier.labels) - {_NO_LANGUAGE}

    def language(self, text: str) -> str | None:
        found, probability = self._identifier.classify(text)
        return str(found) if probability > 0.5 and found != _NO_LANGUAGE else None


_NO_LANGUAGE = "zxx"
"""The model's word for numbers and markup."""
