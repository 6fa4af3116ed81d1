"""Patterns of personal data that Presidio has no recogniser for, or one that misses most of what people write: street
addresses and post codes of many countries, phone numbers in local notation, dates with a time, ages, titles, and the
names, places and organisations that the words around them give away.

Each pattern stands behind a cheap test, since most texts hold none of it. Scores say how sure a pattern is alone.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from pipelines.stages.protocols import Finding

_GAP = r"[ \t]+"
_NUMBER = r"(?<![.,\w])\d{1,5}(?:[A-Za-z](?![\w'])|[-/]\d{1,4}[A-Za-z]?(?!\w))?(?![\w'’:/%$€£]|[.,]\d)"
_WORD = r"(?:\p{Lu}(?:\p{L}{0,2}\.|[\p{L}\p{M}'’∆-]*))"
_LINK = (
    r"(?:(?:d['’]|l['’]|de\s+l['’])(?=\p{L})|(?:a|and|an|da|das|de|del|della|den|der|di|do|dos|du|e|el|"
    r"i|la|las|le|les|los|"
    r"nad|of|på|the|u|van|ved|von|y|zum|zur)[ \t]+)"
)
_NAME = rf"(?:{_LINK}{{0,2}}{_WORD})"
_NAMES = rf"{_NAME}(?:{_GAP}{_NAME}){{0,4}}"
_UNIT = r"(?i:(?:apt|apartment|suite|ste|unit|flat|room|floor|building|bldg)\b\.?[ \t]*#?[ \t]*\d{1,5}[a-z]?\b)"
_ENGLISH = (
    r"(?i:street|st|road|rd|lane|ln|avenue|ave|drive|dr|court|ct|close|way|boulevard|blvd|terrace|place|"
    r"pl|square|row|hill|"
    r"crescent|mews|gardens|grove|walk|parade|parkway|pkwy|highway|hwy|circle|cir|alley|trail|bypass|"
    r"coves?|courts|loop|"
    r"plaza|quay|esplanade|turnpike|heights|ridge|bend|crossing|rise|vale|green|wharf|park|crossroads?|union|dam)"
)
# Words of a street that stand before its name, and words or endings of one behind it.
_BEFORE = (
    r"(?i:rua|r\.|avenida|avda|av|travessa|praça|largo|estrada|rodovia|alameda|quinta|calle|c/|paseo|plaza|carrera|"
    r"carretera|camino|ronda|rambla|via|viale|vicolo|piazza|piazzetta|piazzale|corso|strada|contrada|"
    r"rue|avenue|boulevard|"
    r"chemin|allée|allee|impasse|quai|place|route|cours|ul|ulica|aleja|al|os|osiedle|plac|pl|nám|náměstí|třída|tř|"
    r"am|an\s+der|auf\s+der|im|zum|unter\s+den|pod|na|nad|cite|cité|πλατεία|οδός|λεωφόρος)"
)
_AFTER = (
    r"(?i:strasse|straße|str|gasse|weg|platz|allee|ufer|ring|damm|hof|park|berg|straat|laan|plein|gracht|kade|dijk|"
    r"gade|vej|vænget|gata|gatan|gatu|vägen|vagen|väg|veien|veg|vegen|vei|stien|stræde|torv|allé|gränd|"
    r"katu|tie|kuja|polku|kaari|raitti|tänav|tee|mnt|puiestee|utca|u|út|útja|tér|tere|sor|köz|rkp|ulice|"
    r"ulica|cesta|trg|"
    r"braut|stígur|vegur|götu|höfði|centret|bakken|haugen|lia|åsen|ská|cká|ní|ova|ého|skiego)\.?"
)
_POST_CODE = (
    r"(?:[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}|[A-Z]\d[A-Z]\s?\d[A-Z]\d|(?:[A-Z]{1,2}-)?\d{4,6}(?:-\d{3,4})?|\d{2}-\d{3}|"
    r"\d{3}\s\d{2})(?![\w-]|[.,]\d)"
)
# What follows a street: units, the rest of the line, and whole lines that hold a place and a post code only.
_PLACE = (
    rf"(?:(?!(?:The|It|I|We|Please|He|She|They|This|My|You|If|And|But|Call|Phone|Tel|Fax|Email|"
    rf"E-mail)\b){_NAME}(?!['’:])|nan\b|\((?:{_NAME}\s?)+\)|{_POST_CODE})"
)
_LINE = rf"[ \t]*(?:,[ \t]*)?(?:{_UNIT}|{_PLACE}|\d{{1,2}}\b)(?:[ \t]*,?[ \t]+(?:{_UNIT}|{_PLACE})){{0,4}}"
_REST = (
    rf"(?:[ \t]*,?[ \t]*{_UNIT})*(?:(?:[ \t]*,[ \t]*|[ \t]+)(?:{_UNIT}|{_PLACE})){{0,6}}"
    rf"(?:[ \t]*,?[ \t]*\n{{1,2}}{_LINE}(?=[ \t]*,?[ \t]*(?:\n|$|[.,!?;]|\p{{Ll}}))){{0,5}}"
)
_AT = (
    r"(?<=\b(?i:at|on|to|from|near|address|adres|adresse|is|it['’]s|in|live|lives|living|following|via|"
    r"and)[\s:?]{1,12}|"
    r"^[ \t]*|\n[ \t]*)"
)
_NOT_A_STREET = (
    r"(?!(?i:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|"
    r"wednesday|thursday|friday|saturday|sunday|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|invoice|"
    r"order|ticket|page|"
    r"chapter|section|article|figure|table|step|part|volume|version|item|line|row|level|grade|class|phase|option|room|"
    r"gate|flight|platform|windows|python|java|iphone|android|top|about|around|over|under|only|number|no|id|code|case|"
    r"ref|reference|account|card|pin|the|a|an|this|that|in|on|at|by|for|from|to|and|or|of|is|was|it|i|"
    r"you|we|he|she|they|"
    r"my|your|his|her|our|their|since|until|before|after|between|with|last|next|first|all|if|when|what|"
    r"who|how|please|need|"
    r"meet|call|return|mr|mrs|ms|dr)\b)"
)
_WHO = rf"{_NAME}(?:[ ]{_NAME}){{0,3}}"
_KIN = (
    r"(?:wife|husband|son|daughter|kids?|mother|father|mom|dad|brother|sister|partner|boss|friend|"
    r"killers?|address|birthday)"
)


class _Pattern(NamedTuple):
    kind: str
    score: float
    expression: str
    flags: str = ""


def _said(words: str, value: str) -> str:
    """A value within thirty characters after the words for it."""
    return rf"(?<=\b(?:{words})\b[^\n]{{0,30}})(?<![\w-])(?:{value})(?![\w-])"


_DIGITS = (
    # Military and diplomatic post, post boxes.
    _Pattern(
        "STREET_ADDRESS",
        0.9,
        r"\b(?:(?:psc|unit|cmr)\s+\d+,?\s+box\s+\d+|us(?:s|ns|nv|"
        r"cgc)\s+[\p{L}'’-]+)\s+[adf]po,?\s+a[aep]\s+\d{5}(?:-\d{4})?\b",
        "i",
    ),
    _Pattern(
        "STREET_ADDRESS",
        0.9,
        rf"(?:\b{_NUMBER}{_GAP})?\b(?i:p\.?\s?o\.?\s?box|post(?:boks|box|fach|lådan?)|p\.?b\.|"
        rf"apartado(?:\s+de\s+correos)?|casilla|"
        rf"caixa\s+postal)\s+\d{{1,6}}\b",
    ),
    # A number, a street; a number, a street, a number; a street, a number, a unit.
    _Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"\b(?:{_NUMBER}{_GAP}){{1,2}}(?:(?:{_NAME}|\d{{1,2}}(?i:st|nd|rd|th)){_GAP}){{1,4}}?{_ENGLISH}\b\.?"
        rf"(?:{_GAP}(?i:north|south|east|west)\b)?",
    ),
    _Pattern(
        "STREET_ADDRESS",
        0.7,
        rf"(?:{_UNIT}{_GAP})?\b(?:{_NUMBER}{_GAP}){{1,2}}{_NOT_A_STREET}{_NAMES}{_GAP}{_NUMBER}\.?",
    ),
    _Pattern("STREET_ADDRESS", 0.8, rf"\b(?:{_NUMBER}{_GAP}){{1,2}}{_NAMES}(?:{_GAP}|,|\n)+{_UNIT}"),
    # A word for a street, then its name and number; a name that ends in such a word, then the number.
    _Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"(?:\b{_NUMBER}{_GAP}){{0,2}}\b{_BEFORE}(?!\w)\.?{_GAP}{_NAMES},?{_GAP}{_NUMBER}\.?",
    ),
    _Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"(?:\b{_NUMBER}{_GAP}){{1,2}}(?i:rue|avenue|boulevard|chemin|allée|impasse|quai|place|"
        rf"route){_GAP}{_LINK}{{0,2}}"
        rf"\p{{L}}[\p{{L}}'’-]*(?:{_GAP}{_NAME}){{0,4}}",
    ),
    _Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"(?<![\w'])(?:\p{{Lu}}[\p{{L}}.'’-]*{_GAP}){{0,3}}(?:\p{{Lu}}[\p{{L}}'’-]*)?(?<=\p{{L}}|"
        rf"\p{{L}}[ ]){_AFTER}(?<=\p{{L}}{{3}}\.?|[ ]u\.|[ ]út){_GAP}{_NUMBER}\.?",
    ),
    # A capitalised name and a number where a place is meant.
    _Pattern("STREET_ADDRESS", 0.5, rf"{_AT}{_NOT_A_STREET}{_NAMES}{_GAP}{_NUMBER}\.?"),
    _Pattern("STREET_ADDRESS", 0.6, rf"(?<!\w){_UNIT}"),
    _Pattern(
        "STREET_ADDRESS", 0.6, rf"(?<=\n[ \t]*){_PLACE}(?:{_GAP}{_PLACE}){{0,3}}{_GAP}{_POST_CODE}(?=[ \t]*(?:\n|$))"
    ),
    # Post codes: Britain's and Canada's by their form, others by the word or the place before them.
    _Pattern("ZIP_CODE", 0.7, r"\b(?:[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}|[A-Z]\d[A-Z]\s\d[A-Z]\d)\b"),
    _Pattern(
        "ZIP_CODE",
        0.6,
        rf"(?<=\b(?i:(?:zip|post|postal)\s*-?\s?code(?:\s+is)?|zip)[\s:]{{1,6}}){_POST_CODE}",
    ),
    _Pattern("ZIP_CODE", 0.5, rf"(?<=\b[A-Z]{{2}}\s+){_POST_CODE}(?=\s*(?:$|\n|[.,]))"),
    _Pattern(
        "ZIP_CODE",
        0.5,
        r"(?<=\p{L}[ \t]*\n[ \t]*)(?:\d{4,5}|\d{2}-\d{3}|\d{3}\s\d{2}|\d{3}|[A-Z]\d[A-Z]\s\d[A-Z]\d)(?=[ \t]*(?:\n|$))",
    ),
    _Pattern(
        "DATE_TIME",
        0.8,
        r"\b\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?(?!\w)",
    ),
    _Pattern(
        "DATE_TIME",
        0.6,
        r"(?<=\b(?:in|since|from|until|by|year|of|before|after|during|an?)\s)(?:19|20)\d{2}\b(?![.,]?\d|[-/]\d)",
        "i",
    ),
    _Pattern("AGE", 0.8, r"\b\d{1,3}(?=[ -]?(?:years?|yrs?|months?)[ -]?(?:old|of\s+age)\b|[ -]?y/?o\b)", "i"),
    _Pattern(
        "AGE",
        0.7,
        r"(?<=\b(?:aged?|age\s+is|age\s+of|turn(?:ed|s|ing))[\s:]{1,3})\d{1,3}\b"
        r"(?!\s*(?:%|percent|dollars|euros|minutes|hours|days|weeks))",
        "i",
    ),
    _Pattern(
        "AGE",
        0.5,
        r"(?<=\b(?:he|she|i)\s(?:was|is|am)\s|\b(?:i['’]m|he['’]s|she['’]s)\s)\d{1,2}(?=\s*(?:[.!?,;](?!\d)|"
        r"$|\band\b))",
        "i",
    ),
    # Phone numbers: with a country code; area code in brackets; two or more groups.
    _Pattern(
        "PHONE_NUMBER",
        0.8,
        r"(?<![\w+])(?:\+|00)(?=(?:[ ().-]{0,2}\d){7,15}(?!\d))[1-9]\d{0,3}(?:[ .-]?\(?\d{1,7}\)?){1,6}(?![\w]|[.,]\d)",
    ),
    _Pattern("PHONE_NUMBER", 0.7, r"(?<![\w(])\(\d{2,5}\)[ .-]?\d{2,4}(?:[ .-]?\d{2,4}){1,3}(?![\w]|[.,]\d)"),
    _Pattern(
        "PHONE_NUMBER",
        0.6,
        r"(?<![\w.,$€£#+/-])(?!\d{4}[ -]\d{4}[ -]\d{4}[ -])(?:0\d{1,4}|\d{2,4})"
        r"(?:(?:[ ]\d{2,4}){2,4}|(?:-\d{2,4}){2,4}|(?:\.\d{3,4}){2})(?![\w]|[.,-]?\d)",
    ),
    _Pattern("PHONE_NUMBER", 0.5, r"(?<![\w.,$€£#+/-])(?:0\d{3,4}[ -/]\d{5,8}|[2-9]\d{2}[ -]\d{4})(?![\w]|[ .,-]?\d)"),
    _Pattern(
        "PHONE_NUMBER",
        0.6,
        r"(?<=\b(?:phone|telephone|tel|mobile|cell|fax|call|text|whatsapp|"
        r"phone\s+number\s+is)\b[\s.:#]{1,4})\d{6,12}(?![\w]|[.,]\d)",
        "i",
    ),
)
_SAID = (
    # Numbers that are what the words before them say.
    _Pattern(
        "US_DRIVER_LICENSE",
        0.7,
        _said(
            r"driv(?:er|ing)['’]?s?\s+licen[cs]e|driver['’]?s?\s+id|licen[cs]e\s+(?:number|no|id)",
            r"[a-z]{0,3}[\d-]*\d[\d-]{3,}[a-z\d]*",
        ),
        "i",
    ),
    _Pattern("US_PASSPORT", 0.7, _said(r"passport", r"[a-z]{0,2}\d{6,9}"), "i"),
    _Pattern(
        "US_BANK_NUMBER",
        0.7,
        _said(r"(?:bank\s+)?account\s+(?:number|no|is)|acct|routing\s+(?:number|no)", r"\d{8,17}"),
        "i",
    ),
    _Pattern("US_ITIN", 0.7, _said(r"itin|taxpayer\s+(?:id|identification)", r"9\d\d[- ]?\d\d[- ]?\d{4}"), "i"),
    _Pattern(
        "US_SSN",
        0.8,
        r"(?<=\b(?:ssn|social\s+security(?:\s+(?:number|no\.?))?)\b[^\n]{0,20})(?<!\d)\d{9}(?!\d)",
        "i",
    ),
)
_WORDS = (
    _Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"\b(?i:(?:the{_GAP})?corner{_GAP}of){_GAP}{_NAMES}(?:{_GAP}\d{{1,5}})?{_GAP}(?i:and|"
        rf"&){_GAP}{_NAMES}(?:{_GAP}\d{{1,5}})?",
    ),
    _Pattern("DATE_TIME", 0.7, r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b", "i"),
    _Pattern(
        "TITLE",
        0.8,
        r"\b(?:mr|mrs|ms|mx|dr|prof)\b\.?(?=\s+\p{L})|\b(?:miss|madam|professor|sir|dame)(?=\s+(?-i:\p{Lu}))",
        "i",
    ),
    _Pattern("PERSON", 0.8, rf"(?<=\b(?i:mr|mrs|ms|mx|dr|prof|miss|professor)\b\.?\s)(?!{_UNIT}){_WHO}"),
    _Pattern(
        "PERSON",
        0.6,
        rf"(?<=\b(?i:name(?:\s+(?:is|to|was)|:)|call\s+me|name['’]s|names:|name\?|user:|customer:|client:|"
        rf"caller:|patient:|contact:|"
        rf"employee:|attn:|regards,|sincerely,|cheers,)\s{{1,6}}){_WHO}",
    ),
    # Who speaks, is spoken to, has kin.
    _Pattern("PERSON", 0.5, r"(?:(?<=^)|(?<=\n))\p{Lu}[\p{Ll}'’-]+(?:[ ]\p{Lu}[\p{L}'’.-]*){0,3}(?=:[ ]?[\"“])"),
    _Pattern(
        "PERSON",
        0.5,
        r"(?<![\w'’])\p{Lu}\p{Ll}[\p{L}'’-]*(?:[ ]\p{Lu}[\p{L}'’.-]*){0,3}(?=[ ](?:said|says|"
        r"asked|told|shouted|replied|"
        r"explained|whispered|answered|yelled|laughed|smiled|had[ ]given|was[ ]born|grew[ ]up)\b)",
    ),
    _Pattern(
        "PERSON",
        0.5,
        rf"(?<=\b(?:said|says|shouted[ ]at|told|asked|replied|answered|married|met|thank|thanks|dear|hi|"
        rf"hello)[ ]){_WHO}",
    ),
    _Pattern(
        "PERSON",
        0.5,
        rf"(?<=\b(?:directed|written|sung|painted|composed|produced|played|performed|starring|not)[ ]by[ ]|"
        rf"\bstarring[ ]){_WHO}",
    ),
    _Pattern("PERSON", 0.6, rf"(?<![\w'’])\p{{Lu}}[\p{{L}}-]+(?:[ ]\p{{Lu}}[\p{{L}}.-]*){{0,3}}(?=['’]s[ ]{_KIN}\b)"),
    # Where people live, come from, go to.
    _Pattern(
        "LOCATION",
        0.6,
        r"(?<=\b(?:moved|flew|travel(?:l?ing|l?ed)?|went|coming|came|live|lives|lived|living|grew[ ]up|born|"
        r"raised|trip|drove|"
        r"driving|based|located|relocat(?:ed|ing)|flights?|visit)(?:[ ](?:here|back|over|down|up))?[ ](?:to|"
        r"from|in|near)[ ]"
        rf"|\b(?:city|town|village|capital|state)[ ](?:of[ ])?){_WHO}(?:[ ]\({_NAMES}\))?",
    ),
    _Pattern(
        "ORGANIZATION",
        0.6,
        rf"{_WHO}(?:,?[ ](?:and|&)[ ]{_NAMES})?,?[ ](?:Inc|Ltd|LLC|LLP|PLC|GmbH|AG|Corp|Corporation|Group|"
        rf"Holdings|Sons|SA|BV|AB|Oy|ApS)\b\.?",
    ),
    _Pattern(
        "ORGANIZATION",
        0.6,
        rf"(?:(?<=^|\n|[.!?][ ])(?:[Tt]he[ ])?){_WHO}(?:,?[ ](?:and|"
        rf"&)[ ]{_NAMES})?(?=[ ]is[ ]an?[ ](?:[\w-]+[ ]){{0,3}}"
        r"(?:company|bank|firm|corporation|start-?up|agency|manufacturer|provider|retailer)\b)",
    ),
    _Pattern("ORGANIZATION", 0.6, rf"(?<=\b(?:work|works|worked|working|employed)[ ](?:for|at|by|with)[ ]){_WHO}"),
    # What a person does, where the text says so: "as a ...", after a name and a comma, on a line below the name.
    _Pattern(
        "TITLE",
        0.5,
        r"(?<=\b(?:[Ww]ork(?:s|ed|ing)?[ ](?:for|at)[ ][^.\n]{2,40}|employed|hired|job|"
        r"working)[ ]as[ ](?:an?[ ])?)\p{L}[\p{L}-]+(?:[ ][\p{L}-]+){0,4}?(?=[,.!?;]|$|\n|[ ](?:at|"
        r"in|for|but|and|since|with)\b)",
    ),
    _Pattern(
        "TITLE",
        0.5,
        r"(?<=\p{L},[ ](?:the|our|your|a|"
        r"an)[ ])\p{L}[\p{L}-]+(?:[ ][\p{Ll}][\p{L}-]+){0,3}(?=,[ ](?:said|says|told|asked|"
        r"explained))",
    ),
)


_DIGIT = re.compile(r"\d")
_LEADING = re.compile(r"(?<![\w.,$€£#+/-])(?:\d{1,5}[ \t]){1,2}$|\bcorner of $", re.IGNORECASE)
"""A number before a street is part of it."""
_PLACE_SCORE = 0.5
"""The city, state and post code that follow a street."""
_CUES = re.compile(
    r"licen[cs]e|passport|account|acct|routing|itin|taxpayer|ssn|social\s+security|driver", re.IGNORECASE
)


class _Compiled(NamedTuple):
    digits: list[tuple[_Pattern, Any]]
    said: list[tuple[_Pattern, Any]]
    words: list[tuple[_Pattern, Any]]
    rest: Any


@cache
def _compiled() -> _Compiled:
    import regex

    def ready(patterns: Iterable[_Pattern]) -> list[tuple[_Pattern, Any]]:
        return [(p, regex.compile(p.expression, regex.IGNORECASE if p.flags else 0)) for p in patterns]

    return _Compiled(ready(_DIGITS), ready(_SAID), ready(_WORDS), regex.compile(_REST))


def pattern_findings(text: str) -> Iterator[Finding]:
    """Findings of every pattern, overlaps and all."""
    ready = _compiled()
    patterns = ready.words
    if _DIGIT.search(text):
        patterns = patterns + ready.digits + (ready.said if _CUES.search(text) else [])
    for pattern, expression in patterns:
        for match in expression.finditer(text):
            start = match.start()
            if pattern.kind == "STREET_ADDRESS" and (number := _LEADING.search(text, max(0, start - 14), start)):
                start = number.start()
            end = match.end()
            if pattern.kind == "STREET_ADDRESS" and (rest := ready.rest.match(text, end)) and rest.end() > end + 2:
                yield Finding(end, rest.end(), "LOCATION", _PLACE_SCORE)
            yield Finding(start, end, pattern.kind, pattern.score)
