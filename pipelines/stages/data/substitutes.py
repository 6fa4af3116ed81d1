"""Made-up values that stand in for personal data: of the same kind, from ranges that belong to nobody.

E-mail lies in example domains (RFC 2606), addresses in documentation networks (RFC 5737, RFC 3849), phone numbers in
555-01xx, social security numbers in the area 000. A card keeps its last four digits, as a receipt shows them, so that a
tool call that names them stays right.
"""

from collections.abc import Callable, Iterator, Mapping

_FIRST_NAMES = "Ada Bruno Carla Dmitri Elena Farid Greta Hugo Imani Jonas Keiko Lars Mira Nadia Oscar Priya Rosa Tomas"
_LAST_NAMES = "Alder Birch Castell Drummond Ellery Fairfax Garnett Holloway Iverson Kessler Lindqvist Marlowe Norwood"
_STREETS = "Juniper Lantern Meadow Orchid Pebble Quarry Saddle Thistle Walnut Yarrow Cedar Harbour Mill"
_STREET_KINDS = "Street Road Lane Avenue Terrace Close Walk Drive Grove"
_CITIES = (
    "Ashford Brookhaven Clearwater Dunmore Eastvale Fernley Glenwood Harwick Inverley Jarrow Kingsford Lakeview "
    "Millbrook Norham Oldcastle Penrith Quenby Redmont Selwick Tarleton Upminster Varley Westmoor Yeovale"
)
_DOMAINS = (
    "example.org example.com example.net acorn.example lantern.example mill.example orchid.example quarry.example"
)


def substitute(kind: str, original: str, number: int) -> str:
    """The ``number``-th stand-in of a kind; different numbers give different values, up to the size of its range."""
    return _KINDS.get(kind, _plain)(kind, original, number)


def stand_ins(kind: str, original: str, start: int) -> Iterator[str]:
    """A thousand stand-ins from ``start`` on, without the original."""
    for number in range(start, start + 1000):
        value = substitute(kind, original, number)
        if value.casefold() != original.casefold():
            yield value


def assign(values: Mapping[str, str], held: str, start: int) -> dict[str, str]:
    """Original -> stand-in for each value (original -> kind), all different and none in ``held`` (casefolded text)."""
    chosen: dict[str, str] = {}
    for number, (value, kind) in enumerate(sorted(values.items())):
        free = (each for each in stand_ins(kind, value, start + number) if each.casefold() not in held)
        chosen[value] = next((each for each in free if each not in chosen.values()), f"REMOVED-{number}")
    return chosen


def _pick(words: str, number: int) -> str:
    choices = words.split()
    return choices[number % len(choices)]


def _person(kind: str, original: str, number: int) -> str:
    """A full name for a full name, a first name for a single word."""
    first = _pick(_FIRST_NAMES, number)
    return f"{first} {_pick(_LAST_NAMES, number)}" if " " in original.strip() else first


def _email(kind: str, original: str, number: int) -> str:
    first, last = _pick(_FIRST_NAMES, number).lower(), _pick(_LAST_NAMES, number // 3).lower()
    local = (f"{first}.{last}", f"{first}{number % 97}", f"{first[0]}.{last}", f"{last}.{number % 89}", first)[
        number % 5
    ]
    return f"{local}@{_pick(_DOMAINS, number // 7)}"


def _phone(kind: str, original: str, number: int) -> str:
    return f"+1-{200 + number // 100 % 700}-555-01{number % 100:02}"


def _card(kind: str, original: str, number: int) -> str:
    """A number that passes Luhn's check, in groups of four, ending as the original does."""
    last = [int(digit) for digit in original if digit.isdigit()][-4:]
    digits = [4, 0, 0, 0, 0, 0, *(int(digit) for digit in f"{number % 100_000:05}"), 0, *last]
    digits[11] = next(d for d in range(10) if _luhn([*digits[:11], d, *last]))
    text = "".join(map(str, digits))
    return " ".join(text[i : i + 4] for i in range(0, 16, 4)) if not original.isdigit() else text


def _luhn(digits: list[int]) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def _iban(kind: str, original: str, number: int) -> str:
    """An IBAN of a bank code that is nobody's, with right check digits (ISO 7064, mod 97-10)."""
    account = f"TEST{number % 10**14:014}"
    as_number = "".join(str(int(character, 36)) for character in account + "GB00")
    return f"GB{98 - int(as_number) % 97:02}{account}"


def _street(kind: str, original: str, number: int) -> str:
    return f"{1 + number % 98} {_pick(_STREETS, number)} {_pick(_STREET_KINDS, number // 13)}"


def _city(kind: str, original: str, number: int) -> str:
    return _pick(_CITIES, number)


def _ip(kind: str, original: str, number: int) -> str:
    return f"2001:db8::{number % 65535 + 1:x}" if ":" in original else f"192.0.2.{number % 254 + 1}"


def _ssn(kind: str, original: str, number: int) -> str:
    return f"000-{number // 10_000 % 99 + 1:02}-{number % 10_000:04}"


def _url(kind: str, original: str, number: int) -> str:
    return f"https://example.org/removed/{number % 10_000}"


def _organisation(kind: str, original: str, number: int) -> str:
    return f"{_pick(_LAST_NAMES, number)} & {_pick(_LAST_NAMES, number // 13 + 1)} Ltd"


def _date(kind: str, original: str, number: int) -> str:
    return f"2001-{number % 12 + 1:02}-{number // 12 % 28 + 1:02}"


def _age(kind: str, original: str, number: int) -> str:
    return str(20 + number % 60)


def _plain(kind: str, original: str, number: int) -> str:
    return f"REMOVED-{kind.replace('_', '-')}-{number % 10_000}"


_KINDS: dict[str, Callable[[str, str, int], str]] = {
    "PERSON": _person,
    "EMAIL_ADDRESS": _email,
    "PHONE_NUMBER": _phone,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "STREET_ADDRESS": _street,
    "LOCATION": _city,
    "IP_ADDRESS": _ip,
    "US_SSN": _ssn,
    "URL_SECRET": _url,
    "URL": _url,
    "ORGANIZATION": _organisation,
    "DATE_TIME": _date,
    "AGE": _age,
}
