"""Titles, and the people, places and organisations that the words around them give away."""

from resources.pii_grammar import NAMES, WHO, Pattern

_KIN = (
    r"(?:wife|husband|son|daughter|kids?|child|children|mother|father|mom|mum|dad|brother|sister|partner|boss|friend|"
    r"neighbou?rs?|assistant|address|birthday)"
)
# Legal forms of companies in many countries (the abbreviations of ISO 20275).
_FORM = (
    r"(?:Inc|Incorporated|Ltd|Limited|LLC|LLP|L\.L\.C|PLC|plc|Pty|Corp|Corporation|Co|Group|Holdings?|GmbH|AG|KG|KGaA|"
    r"OHG|UG|e\.[ ]?V|SE|SA|S\.A|SAS|S\.A\.S|SARL|S\.à[ ]r\.l|SNC|S\.L|S\.L\.U|SL|S\.Coop|SpA|SPA|S\.p\.A|Srl|SRL|"
    r"s\.r\.l|S\.r\.l|BV|B\.V|NV|N\.V|AB|AS|A/S|ASA|ApS|I/S|Oy|Oyj|Tmi|Ky|Osk|Kft|Zrt|Nyrt|Bt|s\.r\.o|a\.s|z\.s|d\.o\.o|"
    r"d\.d|Sp\.[ ]z[ ]o\.o|Sp\.[ ]?j|s\.c|Lda|Ltda|S/A|SCA|et[ ]Fils|and[ ]Sons|&[ ]Sons|e[ ]figli|e[ ]Filhos|Gruppen|"
    r"Groep|Gruppo|Stiftung)"
)

_NOBODY = (
    r"(?!(?:He|She|It|They|We|You|I|Who|The|This|That|These|Those|A|An|My|Our|Your|His|Her|Their|One|Someone|Nobody|"
    r"Everyone|Everybody|And|But|So|Then|When|As|If)\b)"
)

WORDS = (
    Pattern("DATE_TIME", 0.7, r"\b(?:mon|tues|wednes|thurs|fri|satur|sun)days?\b", "i"),
    Pattern(
        "TITLE",
        0.8,
        r"\b(?:mr|mrs|ms|mx|dr|prof)\b\.?(?=\s+\p{L})|\b(?:miss|madam|professor|sir|dame)(?=\s+(?-i:\p{Lu}))",
        "i",
    ),
    Pattern("PERSON", 0.8, rf"(?<=\b(?i:mr|mrs|ms|mx|dr|prof|miss|professor)\b\.?\s)(?!(?:Apt|Unit|Suite)\b){WHO}"),
    Pattern(
        "PERSON",
        0.6,
        rf"(?<=\b(?i:name(?:\s+(?:is|to|was)|:)|call\s+me|name['’]s|names:|name\?|user:|customer:|client:|caller:|"
        rf"patient:|employee:|contact:|from:|to:|attn[:.]|attention:?|regards,|sincerely,|cheers,|wishes,|love,|i\s+am|this\s+is)"
        rf"\s{{1,6}}){WHO}",
    ),
    # Who speaks, is spoken to, has kin.
    Pattern("PERSON", 0.5, r"(?:(?<=^)|(?<=\n))\p{Lu}[\p{Ll}'’-]+(?:[ ]\p{Lu}[\p{L}'’.-]*){0,3}(?=:[ ]?[\"“])"),
    Pattern(
        "PERSON",
        0.5,
        rf"(?<![\w'’]){_NOBODY}\p{{Lu}}\p{{Ll}}[\p{{L}}'’-]*(?:[ ]\p{{Lu}}[\p{{L}}'’.-]*){{0,3}}"
        r"(?=[ ](?:said|says|asked|told|shouted|replied|explained|whispered|answered|yelled|laughed|smiled|wrote|"
        r"was[ ]born|grew[ ]up)\b)",
    ),
    Pattern(
        "PERSON",
        0.5,
        r"(?<=\b(?:said|says|shouted[ ]at|told|asked|replied|answered|married|met|thank|thanks|dear|hi|hello)[ ])"
        rf"{WHO}",
    ),
    Pattern("PERSON", 0.5, rf"(?<=\b(?:composed|directed|painted|signed|written)[ ]by[ ]){WHO}"),
    Pattern("PERSON", 0.6, rf"(?<![\w'’])\p{{Lu}}[\p{{L}}-]+(?:[ ]\p{{Lu}}[\p{{L}}.-]*){{0,3}}(?=['’]s[ ]{_KIN}\b)"),
    # Where people live, come from, go to.
    Pattern(
        "LOCATION",
        0.6,
        r"(?<=\b(?:moved|flew|travel(?:l?ing|l?ed)?|went|coming|came|live|lives|lived|living|grew[ ]up|born|raised|"
        r"trip|drove|driving|based|located|issued|relocat(?:ed|ing)|flights?|visit)(?:[ ](?:here|back|over|down|up))?"
        rf"[ ](?:to|from|in|near)[ ]|\b(?:city|town|village|capital|state)[ ](?:of[ ])?"
        rf"|\b(?i:city|town|country|place|location|where|destination|venue):[ ]){WHO}(?:[ ]\({NAMES}\))?",
    ),
    Pattern(
        "ORGANIZATION",
        0.6,
        rf"{WHO}(?:(?:,[ ]{WHO})?,?[ ](?:and|&|y|et|und|e)[ ]{WHO})?(?:[ ]-[ ](?:ME|EI)\b|,?[ ]{_FORM}(?!\w)\.?"
        rf"(?:[ ]&[ ]Co\.?[ ]KG)?)",
    ),
    Pattern(
        "ORGANIZATION",
        0.6,
        rf"(?<![\w'’])(?!The\b){WHO}(?:(?:,[ ]{WHO})?,?[ ](?:and|&)[ ]{WHO})?(?=[ ](?:is[ ]an?[ ](?:[\w-]+[ ]){{0,3}}"
        r"(?:company|bank|firm|corporation|start-?up|agency|manufacturer|provider|retailer)\b|was[ ]founded[ ]))",
    ),
    Pattern("ORGANIZATION", 0.6, rf"(?<=\b(?:work|works|worked|working|employed)[ ](?:for|at|by|with)[ ]){WHO}"),
    # What a person does, where the text says so: "as a ...", after a name and a comma.
    Pattern(
        "TITLE",
        0.5,
        r"(?<=\b(?:[Ww]ork(?:s|ed|ing)?[ ](?:for|at)[ ][^.\n]{2,40}|joined[ ][^\n]{2,40}|employed|hired|job|"
        r"working)[ ]as[ ](?:an?[ ]|the[ ])?)\p{L}[\p{L}-]+(?:[ ][\p{L}-]+){0,4}?"
        r"(?=[,.!?;]|$|\n|[ ](?:at|in|for|but|and|since|with)\b)",
    ),
    Pattern(
        "TITLE",
        0.5,
        r"(?<=\p{L},[ ](?:the|our|your|a|an)[ ])\p{L}[\p{L}-]+(?:[ ][\p{Ll}][\p{L}-]+){0,3}"
        r"(?=,[ ](?:said|says|told|asked|explained))",
    ),
)
