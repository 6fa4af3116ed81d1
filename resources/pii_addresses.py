"""Street addresses and post codes, as many countries write them.

A street is known by its word ("12 Oak Lane", "rue de Rivoli 14", "Hauptstraße 3"), by the post code and place that
follow ("Dejvická 376, 286 01 Radnice"), or by the words before it ("I live at Kraljevec 8b").
"""

from resources.pii_grammar import GAP, LINK, NAME, NAMES, Pattern

NUMBER = (
    r"(?<![.,\w])\d{1,5}(?:[A-Za-z](?![\w'])|[-/]\d{1,4}[A-Za-z]?(?!\w)|[A-Za-z][-/]\d{1,4}(?!\w))?"
    r"(?![\w'’:/%$€£]|[.,]\d)"
)
_NUMBERED = rf"(?:(?i:nr|no|n°|nº|num|č)\.?\s?)?{NUMBER}(?:\.(?=,|[ \t]*\n))?"
_UNIT_WORD = (
    r"(?i:apt|apartment|apartamento|appartamento|apto|suite|ste|unit|flat|room|floor|building|bldg|studio|piso|"
    r"puerta|escalera|etage|étage|wohnung|lägenhet|lgh|lok|bl|sc|ap|et)\b"
)
_UNIT = rf"(?:{_UNIT_WORD}\.?[ \t]*#?[ \t]*\d{{1,5}}[A-Za-z]?\b)"
_NOT_UNIT = rf"(?:(?!{_UNIT_WORD}){NAME})"
_STREET = rf"{_NOT_UNIT}(?:{GAP}{_NOT_UNIT}){{0,4}}+"
"""Possessive: what follows a street's name is a number, never a word given back."""
# The suffixes of Publication 28 of the United States Postal Service, those of Britain and Ireland, and short forms.
_ENGLISH = (
    r"(?i:all(?:ey|y)|annex|arcade|av(?:e|enue)?|bayou|beach|bend|bl(?:uffs?|vd)|bottom|boulevard|br(?:anch|idge|ooks?)|"
    r"burgs?|bypass|camp|canyon|cape|causeway|cent(?:er|re)s?|cir(?:cles?)?|cl(?:iffs?|ose|ub)|common|corners?|cottages?|course|"
    r"court|courts|coves?|creek|cres(?:cent|t)?|cross(?:ing|roads?)|ct|curve|dale|dam|divide|dr(?:ives?)?|estates?|"
    r"expressway|extensions?|falls?|ferry|fields?|flats?|fords?|forests?|forges?|forks?|fort|freeway|gardens?|gateway|"
    r"glens?|greens?|groves?|harbou?rs?|haven|heights|highway|hills?|hollow|houses?|hwy|inlet|islands?|isle|junctions?|keys?|"
    r"knolls?|lakes?|land|landing|lanes?|lights?|ln|loaf|locks?|lodge|loop|mall|manors?|meadows?|mews|mills?|mission|"
    r"motorway|mountains?|mount|neck|orchard|oval|overpass|parade|parks?|parkways?|pass|passage|path|pike|pines?|pkwy|"
    r"pl(?:aces?|ains?|aza)?|points?|ports?|prairie|quays?|radial|ramp|ranch|rapids?|rd|rest|ridges?|ridgeway|rise|"
    r"river|roads?|route|row|run|shoals?|shores?|skyway|springs?|spurs?|squares?|sq|station|str(?:avenue|eam|eets?)|st|"
    r"summit|terrace|throughway|trace|track|trafficway|trails?|tunnel|turnpike|underpass|unions?|vale|valleys?|viaduct|"
    r"views?|villages?|ville|vista|walks?|wall|way|ways|wells?|wharf)"
)
# Words of a street that stand before its name.
_BEFORE = (
    r"(?i:rua|r\.|avenida|avda|av|travessa|praça|praia|largo|ladeira|estrada|rodovia|alameda|quinta|pátio|vila|viela|"
    r"calle|c/|callejón|paseo|pasaje|pasadizo|plaza|carrera|carretera|camino|cañada|cuesta|glorieta|ronda|rambla|vial|"
    r"urbanización|via|viale|vicolo|piazza|piazzetta|piazzale|corso|strada|contrada|borgo|canale|rotonda|"
    r"rue|avenue|boulevard|chemin|allée|allee|impasse|quai|place|route|cours|square|cite|cité|"
    r"ul|ulica|aleja|al|os|osiedle|plac|pl|nám|náměstí|třída|tř|na|nad|pod|"
    r"strada|str|bulevardul|b-dul|aleea|calea|[sșş]oseaua|splaiul|intrarea|"
    r"am|an\s+der|auf\s+der|im|zum|unter\s+den|πλατεία|οδός|λεωφόρος)"
)
_FRENCH = r"(?i:rue|avenue|boulevard|chemin|allée|impasse|quai|place|route|cours)"
# Words and endings of a street's name.
_AFTER = (
    r"(?i:strasse|straße|str|gasse|weg|platz|allee|ufer|ring|damm|hof|park|berg|straat|laan|plein|gracht|kade|dijk|"
    r"singel|steeg|boulevard|gade|vej|vænget|stræde|torv|allé|stien|gata|gatan|gate|gaten|gatu|vägen|vagen|väg|torget|"
    r"gränd|stigen|veien|veg|vegen|vei|bakken|haugen|kroken|løkka|ringen|svingen|toppen|tunet|vollen|lia|åsen|centret|katu|tie|kuja|polku|kaari|raitti|bulevardi|tänav|"
    r"tee|mnt|puiestee|utca|u|út|útja|tér|tere|sor|köz|rkp|ulice|ulica|cesta|trg|šetalište|braut|stígur|vegur|götu|"
    r"höfði|sokak|sokağı|caddesi|nagar|marg|chowk)\.?"
)
POST_CODE = (
    r"(?<!\w)(?:[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}|[A-Z]\d[A-Z]\s?\d[A-Z]\d|\d{4}\s?[A-Z]{2}|(?:[A-Z]{1,2}-)?\d{4,6}|"
    r"\d{5}-?\d{3,4}|\d{2}-\d{3}|\d{3}\s\d{2})(?![\w-]|[.,]\d)"
)
_NO_PLACE = (
    r"(?!(?:The|It|I|We|Please|He|She|They|This|My|You|If|And|But|Or|Call|Phone|Tel|Fax|Mobile|Email|E-mail|Mail|"
    r"Attn|Regards|Kind|Best|Thanks|Thank|Sincerely|Yours|Cheers|Name|Date|SSN|IBAN|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|"
    r"Oct|Nov|Dec|January|February|March|April|June|July|August|September|October|November|December)\b)"
)
_PLACE = rf"(?:{_NO_PLACE}{NAME}(?!['’:])|\({NAMES}\))"
_PLACES = rf"{_PLACE}(?:{GAP}{_PLACE}){{0,3}}"
_TOWN = rf"(?:{POST_CODE}{GAP}{_PLACES}|{_PLACES}(?:,?{GAP}{_PLACE}){{0,2}},?{GAP}{POST_CODE})"
"""A place with its post code."""
_UNITS = rf"(?:[ \t]*,?[ \t]*{_UNIT})*"
_TOWN_FOLLOWS = rf"(?={_UNITS}(?:,[ \t]*|[ \t]*,?[ \t]*\n[ \t]*|[ \t]+){_TOWN})"
_END = r"(?=[ \t]*,?[ \t]*(?:\n|$))"
_PART = rf"(?:{_UNIT}|{_PLACE}|{POST_CODE}|\d{{1,2}}\b)"
_LINE = rf"{_PART}(?:[ \t]*,?[ \t]+{_PART}){{0,4}}{_END}"
"""A line of places, units and post codes alone."""
REST = (
    rf"(?:(?P<units>(?:[ \t]*,?\s*{_UNIT})+)(?:{GAP}{_PLACES})?)?"
    rf"(?:[ \t]*,?[ \t]+{_TOWN}(?:,{GAP}{_PLACES})?|(?:[ \t]*,[ \t]*{_PLACES}){{1,3}}(?:[ \t]+{POST_CODE})?|"
    rf"(?:[ \t]+{_PART}){{1,5}}{_END})?"
    rf"(?:[ \t]*,?[ \t]*\n[ \t]*,?[ \t]*(?:{_LINE}|{_TOWN}|\n[ \t]*(?:{POST_CODE}|{_TOWN}){_END})){{0,4}}"
)
"""What follows a street: units, the place and its post code, on its line and on lines below."""
_NOT_A_STREET = (
    r"(?!(?i:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|"
    r"wednesday|thursday|friday|saturday|sunday|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|invoice|order|ticket|page|"
    r"chapter|section|article|figure|table|step|part|volume|version|item|line|row|level|grade|class|phase|option|room|"
    r"gate|flight|platform|windows|python|java|iphone|android|top|about|around|over|under|only|number|no|id|code|case|"
    r"ref|reference|account|card|pin|phone|tel|telephone|fax|mobile|cell|ssn|iban|the|a|an|this|that|in|on|at|by|for|"
    r"from|to|and|or|of|is|was|it|i|you|we|he|she|they|my|your|his|her|our|their|since|until|before|after|between|with|"
    r"last|next|first|all|if|when|what|who|how|please|need|meet|call|return|mr|mrs|ms|dr)\b)"
)
_AT = (
    r"(?<=\b(?i:at|on|to|from|near|address|adres|adresse|home|is|it['’]s|in|live|lives|living|following|via|and)"
    r"[\s:?]{1,12}|^[ \t]*|\n[ \t]*)"
)

ADDRESSES = (
    # Military and diplomatic post, post boxes.
    Pattern(
        "STREET_ADDRESS",
        0.9,
        r"\b(?:(?:psc|unit|cmr)\s+\d+,?\s+box\s+\d+|us(?:s|ns|nv|cgc)\s+[\p{L}'’-]+)\s+[adf]po,?\s+a[aep]\s+"
        r"\d{5}(?:-\d{4})?\b",
        "i",
    ),
    Pattern(
        "STREET_ADDRESS",
        0.9,
        rf"(?:\b{NUMBER}{GAP})?\b(?i:p\.?\s?o\.?\s?box|post(?:boks|box|fach|lådan?)|p\.?b\.|apartado(?:\s+de\s+correos)?|"
        r"casilla|caixa\s+postal)\s+\d{1,6}\b",
    ),
    # A number, a name, a word for a street.
    Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"\b{NUMBER}{GAP}(?:(?:{NAME}|\d{{1,2}}(?i:st|nd|rd|th)){GAP}){{1,4}}?{_ENGLISH}\b(?:{GAP}{_ENGLISH}\b){{0,2}}\.?"
        rf"(?:{GAP}(?:(?i:north|south|east|west)|[NS][EW])\b)?",
    ),
    # A word for a street, its name and number, or the number first; a name that ends in such a word, then the number.
    Pattern("STREET_ADDRESS", 0.8, rf"(?<!\w){_BEFORE}(?!\w)\.?{GAP}{_STREET},?{GAP}(?!\d{{5}}){_NUMBERED}"),
    Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"\b{NUMBER},?{GAP}{_FRENCH}{GAP}{LINK}{{0,2}}\p{{L}}[\p{{L}}'’-]*(?:{GAP}{NAME}){{0,4}}",
    ),
    Pattern(
        "STREET_ADDRESS",
        0.8,
        # Read backwards, from the number: a text has fewer numbers than words.
        rf"(?r)(?<![\w'])(?:\p{{Lu}}[\p{{L}}.'’-]*{GAP}){{0,3}}(?:\p{{Lu}}[\p{{L}}'’-]*)?(?<=\p{{L}}|"
        rf"\p{{L}}[ ]){_AFTER}(?<=\p{{L}}{{3}}\.?|[ ]u\.|[ ]út){GAP}{_NUMBERED}",
    ),
    # A name and a number, or a number and a name, before a unit, or before a place with its post code.
    Pattern("STREET_ADDRESS", 0.8, rf"\b{NUMBER},?{GAP}{NAMES}(?=(?:{GAP}|,[ ]?|\n){_UNIT})"),
    Pattern("STREET_ADDRESS", 0.7, rf"\b{NUMBER}{GAP}{_NOT_A_STREET}{_STREET}{_TOWN_FOLLOWS}"),
    Pattern("STREET_ADDRESS", 0.7, rf"(?<!\w){_NOT_A_STREET}{_STREET},?{GAP}{_NUMBERED}{_TOWN_FOLLOWS}"),
    Pattern("STREET_ADDRESS", 0.7, rf"\b{NUMBER}{GAP}{_NOT_A_STREET}{_STREET}{GAP}{_NUMBERED}"),
    # A name and a number where a place is meant.
    Pattern("STREET_ADDRESS", 0.5, rf"{_AT}{_NOT_A_STREET}{_STREET}{GAP}{NUMBER}"),
    Pattern("STREET_ADDRESS", 0.6, rf"(?<!\w){_UNIT}"),
    # Post codes: Britain's and Canada's by their form, others by the word before them, or on a line of their own.
    Pattern("ZIP_CODE", 0.7, r"\b(?:[A-Z]{1,2}\d[A-Z\d]?\s\d[A-Z]{2}|[A-Z]\d[A-Z]\s\d[A-Z]\d)\b"),
    Pattern("ZIP_CODE", 0.6, rf"(?<=\b(?i:(?:zip|post|postal)\s*-?\s?code(?:\s+is)?|zip)[\s:]{{1,6}}){POST_CODE}"),
    Pattern("ZIP_CODE", 0.5, rf"(?<=\b[A-Z]{{2}}\s+){POST_CODE}(?=\s*(?:$|\n|[.,]))"),
    Pattern("ZIP_CODE", 0.5, rf"(?<=\p{{L}}[ \t]*\n[ \t]*){POST_CODE}(?=[ \t]*(?:\n|$))"),
)
CORNERS = (
    Pattern(
        "STREET_ADDRESS",
        0.8,
        rf"\b(?i:(?:the{GAP})?corner{GAP}of){GAP}{NAMES}(?:{GAP}\d{{1,5}})?{GAP}(?i:and|&){GAP}{NAMES}(?:{GAP}\d{{1,5}})?",
    ),
)
"""Addresses without a digit."""
