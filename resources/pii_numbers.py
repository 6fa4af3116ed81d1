"""Dates with a time, ages, phone numbers in local notation, and numbers that are what the words before them say."""

from resources.pii_grammar import Pattern


def _said(words: str, value: str) -> str:
    """A value within thirty characters after the words for it."""
    return rf"(?<=\b(?:{words})\b[^\n]{{0,30}})(?<![\w-])(?:{value})(?![\w-])"


NUMBERS = (
    Pattern(
        "DATE_TIME",
        0.8,
        r"\b\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?(?!\w)",
    ),
    Pattern(
        "DATE_TIME",
        0.6,
        r"(?<=\b(?:in|since|from|until|by|year|of|before|after|during|an?)\s)(?:19|20)\d{2}\b(?![.,]?\d|[-/]\d)",
        "i",
    ),
    Pattern("AGE", 0.8, r"\b\d{1,3}(?=[ -]?(?:years?|yrs?|months?)[ -]?(?:old|of\s+age)\b|[ -]?y/?o\b)", "i"),
    Pattern(
        "AGE",
        0.7,
        r"(?<=\b(?:aged?|age\s+is|age\s+of|turn(?:ed|s|ing))[\s:]{1,3})\d{1,3}\b"
        r"(?!\s*(?:%|percent|dollars|euros|minutes|hours|days|weeks))",
        "i",
    ),
    Pattern(
        "AGE",
        0.5,
        r"(?<=\b(?:he|she|i)\s(?:was|is|am)\s|\b(?:i['’]m|he['’]s|she['’]s)\s)\d{1,2}(?=\s*(?:[.!?,;](?!\d)|$|\band\b|"
        r"\bwhen\b))",
        "i",
    ),
    Pattern("AGE", 0.5, r"(?<=\p{Lu}[\p{L}'’-]+[ ]\p{Lu}[\p{L}'’-]+[ ]\()\d{1,2}(?=\))"),
    # Phone numbers: with a country code; area code in brackets; two or more groups; after a word for a phone.
    Pattern(
        "PHONE_NUMBER",
        0.8,
        r"(?<![\w+])(?:\+|00)(?=(?:[ ().-]{0,2}\d){7,15}(?!\d))[1-9]\d{0,3}(?:[ .-]?\(?\d{1,7}\)?){1,6}(?![\w]|[.,]\d)",
    ),
    Pattern("PHONE_NUMBER", 0.7, r"(?<!\w)\(\+\d{1,3}\)(?:[ .-]?\d{2,12}){1,5}(?![\w]|[.,]\d)"),
    Pattern("PHONE_NUMBER", 0.6, r"(?<![\w./,-])\d{2,3}/\d{3}[ -]\d{3,4}(?![\w/]|[.,-]\d)"),
    Pattern("PHONE_NUMBER", 0.7, r"(?<![\w(])\(\d{2,5}\)[ ./-]?\d{2,4}(?:[ .-]?\d{2,4}){1,3}(?![\w]|[.,]\d)"),
    Pattern(
        "PHONE_NUMBER",
        0.6,
        r"(?<![\w.,$€£#+/-])(?!\d{4}[ -]\d{4}[ -]\d{4}[ -])(?:0\d{1,4}|\d{2,4})"
        r"(?:(?:[ ]\d{2,4}){2,4}|(?:-\d{2,4}){2,4}|(?:\.\d{3,4}){2})(?![\w]|[.,-]?\d)",
    ),
    Pattern("PHONE_NUMBER", 0.5, r"(?<![\w.,$€£#+/-])(?:0\d{3,4}[ -/]\d{5,8}|[2-9]\d{2}[ -]\d{4})(?![\w]|[ .,-]?\d)"),
    Pattern(
        "PHONE_NUMBER",
        0.6,
        r"(?<=\b(?:phone|telephone|tel|mobile|cell|fax|call|text|whatsapp|phone\s+number(?:\s+is)?|"
        r"(?:reach|ring)\s+(?:me|us|him|her|them)\s+(?:at|on))\b[\s.:#]{1,4})"
        r"(?=(?:[ ()./-]{0,2}\d){7,13}(?!\d))[(\d](?:[ ()./-]{0,2}\d)+(?![\w]|[.,]\d)",
        "i",
    ),
)
SAID = (
    Pattern(
        "US_DRIVER_LICENSE",
        0.7,
        _said(
            r"driv(?:er|ing)['’]?s?\s+licen[cs]e|driver['’]?s?\s+id|licen[cs]e\s+(?:number|no|id)",
            r"[a-z]{0,3}[\d-]*\d[\d-]{3,}[a-z\d]*",
        ),
        "i",
    ),
    Pattern("US_PASSPORT", 0.7, _said(r"passport", r"[a-z]{0,2}\d{6,9}"), "i"),
    Pattern(
        "US_BANK_NUMBER",
        0.7,
        _said(r"(?:bank\s+)?account\s+(?:number|no|is)|acct|routing\s+(?:number|no)", r"\d{8,17}"),
        "i",
    ),
    Pattern("US_ITIN", 0.7, _said(r"itin|taxpayer\s+(?:id|identification)", r"9\d\d[- ]?\d\d[- ]?\d{4}"), "i"),
    Pattern(
        "US_SSN",
        0.8,
        r"(?<=\b(?:ssn|social\s+security(?:\s+(?:number|no\.?))?)\b[^\n]{0,20})(?<!\d)\d{9}(?!\d)",
        "i",
    ),
)
