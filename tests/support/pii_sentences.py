"""Labelled text of our own: sentences, letters, forms, chats and logs with made-up people, places and numbers of twenty
countries. Every second template is held out: the detector's patterns were written with those of ``seen`` in view, while
of those of ``held_out`` only card and phone numbers that were missed were looked at."""

import random
import re
from collections.abc import Callable
from typing import NamedTuple

from faker import Faker

from pipelines.stages.data.certificate import Labelled
from pipelines.stages.data.protocols import Finding

_LOCALES = (
    *("en_US", "en_GB", "en_IN", "en_CA", "en_AU", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "sv_SE"),
    *("pt_BR", "cs_CZ", "da_DK", "fi_FI", "hu_HU", "no_NO", "ro_RO", "hr_HR"),
)
_KINDS = {
    **dict.fromkeys(("person", "first", "last"), "PERSON"),
    **dict.fromkeys(("city", "country"), "GPE"),
    **dict.fromkeys(("mr", "job"), "TITLE"),
    **dict.fromkeys(("date", "day", "year"), "DATE_TIME"),
    "street": "STREET_ADDRESS",
    "postcode": "ZIP_CODE",
    "company": "ORGANIZATION",
    "phone": "PHONE_NUMBER",
    "email": "EMAIL_ADDRESS",
    "card": "CREDIT_CARD",
    "iban": "IBAN_CODE",
    "ssn": "US_SSN",
    "ssn9": "US_SSN",
    "age": "AGE",
    "nation": "NRP",
    "ip": "IP_ADDRESS",
    "url": "URL",
    "domain": "DOMAIN_NAME",
    "licence": "US_DRIVER_LICENSE",
}
TEMPLATES = (
    "Hello, this is {person}. I ordered two lamps on {date} and only one came.",
    "hi there, can you resend the invoice to {email}? thanks, {first}",
    "Ship the replacement to {person}, {street}, {postcode} {city}.",
    "Agent: May I have your full name?\nCustomer: {person}\nAgent: And a number where we can reach you?\n"
    "Customer: {phone}",
    "Dear {mr} {last},\n\nthank you for your letter of {date}. We have changed your address to\n{street}\n"
    "{postcode} {city}\n\nKind regards\n{person}\n{company}",
    "The parcel went to {street} although I live in {city} now.",
    "{person} has joined {company} as {job}.",
    "Please transfer the deposit to {iban} by {day}.",
    "My card {card} expires next month, when do I get the new one?",
    "Patient {person}, {age} years old, was admitted on {date} with chest pain.",
    "Employee: {person}\nSSN: {ssn}\nPhone: {phone}\nHome: {street}, {city}",
    "We flew from {city} to {city} and lost a suitcase on the way.",
    "Why was {iban} debited twice? I never agreed to that.",
    "{company} opened a branch in {city} last spring.",
    "Is {person} still in charge of the warehouse?",
    "The caller gave {phone} as the number to ring back.",
    "Login failed for user {email} from {ip}.",
    "Our landlord, {mr} {last}, says the boiler will be mended on {day}.",
    "You can find the manual at {url} or ask {first} for a copy.",
    "I was overcharged in your {city} shop by {person}.",
    "Contact sheet\n{person}\n{company}\n{phone}\n{email}",
    "He asked me to write to {email} and copy {email}.",
    "My social security number is {ssn9}, in case you need it for the form.",
    "The {nation} embassy sent {mr} {last} a new form.",
    "she was {age} when she moved to {country}",
    "can you tell {first} that the meeting is at {street} today",
    "Delivery note 88-1204: 3 boxes for {company}, {street}, {city}, {country}.",
    "As {job} of {company} I hereby confirm the order.",
    "The witness, {person}, told the court that she had never met {person}.",
    "Payment by card ({card}) was declined at the till.",
    "Tell me about {city}.",
    "Return address: {person}, {street}, {city} {postcode}",
    "My new postcode is {postcode}, the rest stays as it was.",
    "{first} and {first} are picking up the keys from {person} on {date}.",
    "Our server at {ip} stopped answering at noon.",
    "{person} <{email}> wrote:\n> could you move my appointment?",
    "The novel is by {person}, who grew up in {country}.",
    "Reservation for {last}, two adults, arriving {date}.",
    "Fax {phone}, attention {person}.",
    "I bank with {company}; the account is {iban}.",
    "ok so my name is {first} {last} and i still have no refund",
    "Can the courier come to {street} after six?",
    "{company} was founded in {year} by {person} and {person}.",
    "Her brother {first} turns {age} on {day}.",
    "driver's license {licence}, issued in {city}",
    "Is {domain} your official site? It looks odd.",
    "The tenant at {street}, {postcode} {city}, has not paid since {date}.",
    "A package for {person} was left with the {nation} neighbours.",
    "You may call {mr} {person} at {phone} between nine and five.",
    "Mum says {person} lives opposite the station in {city}.",
    "Complaint no. 5521\nFrom: {person}\nDate: {date}\nAbout: a broken kettle bought at {company}",
    "Charge it to {card}, name on the card is {person}.",
    "{person} played the lead, and {person} wrote the music.",
    "The {job} at {company} never called me back.",
    "ssn {ssn}, dob {date}, that's all i have",
    "We are a {nation} family living in {city}.",
    "The invoice should go to:\n\n{company}\nattn. {person}\n{street}\n{postcode} {city}\n{country}",
    "Minutes: present {person}, {person} and {mr} {last}; absent {person}.",
    "Visit {url} and enter the code we texted to {phone}.",
    "I am {person}'s assistant and would like to change her booking.",
    "{person} ({age}) from {city} won the race.",
    "send it to {street}, {city}, thanks",
    "Blocked {ip} after forty requests to {domain}.",
    "Since {date} nobody at {company} picks up the phone.",
    "My licence number is {licence} and I was born on {date}.",
    "On behalf of {company}, {person} signed the lease for {street}.",
    "From {country} with love, {first}",
    "The money should have gone to {iban}, not to {iban}.",
    "{first} thinks that {last} took the wrong coat.",
    "Dr. {last} will see you at {street}, second door on the left.",
    "My number changed from {phone} to {phone}.",
    "They met in {city} in {year} and married two years later.",
    "Please update my records: I moved to {street}, {city} {postcode} on {date}.",
    "Was it {person} or {person} who signed for the parcel?",
    "Mail to {email} bounces, try {phone} instead.",
    "The {nation} author {person} reads in {city} tonight.",
    "Refund card {card} and close the account of {person}.",
    "{mr} {person}\n{job}, {company}\n{street}\n{city} {postcode}",
    "{first}, could you ask {company} for an offer?",
    '"I never said that," {person} told reporters in {city}.',
    # Without personal data.
    "How long does a refund take?",
    "The coffee machine on the third floor is broken again.",
    "Please send me the price list for bulk orders.",
    "My parcel was wet when it arrived, and the box was torn.",
    "Which plan has unlimited storage?",
    "Reset my password, please, the link does not work.",
    "I want 12 of the blue ones and 30 of the green ones.",
    "Order 4410-8821 has been on its way for 9 days.",
    "Turn to page 214 and read chapter 7 again.",
    "The app crashes whenever I open Settings and press Save.",
)
_IBANS = (
    *(("GB", "aaaa" + "n" * 14), ("DE", "n" * 18), ("FR", "n" * 23), ("ES", "n" * 20), ("NL", "aaaa" + "n" * 10)),
    *(("PL", "n" * 24), ("NO", "n" * 11), ("CH", "n" * 17), ("IT", "a" + "n" * 22), ("RO", "aaaa" + "n" * 16)),
)
_SLOT = re.compile(r"\{(\w+)\}")


class _Sets(NamedTuple):
    seen: list[Labelled]
    held_out: list[Labelled]


def labelled(each: int = 8, seed: int = 11) -> _Sets:
    """``each`` texts of every template, half of the templates apart."""
    draw = random.Random(seed)
    locales = {name: Faker(name) for name in _LOCALES}
    for fake in locales.values():
        fake.seed_instance(seed)
    sets = _Sets([], [])
    for number, template in enumerate(TEMPLATES):
        sets[number % 2].extend(_filled(template, draw, locales[draw.choice(_LOCALES)]) for _ in range(each))
    return sets


def _filled(template: str, draw: random.Random, fake: Faker) -> Labelled:
    text, spans, last = "", [], 0
    for slot in _SLOT.finditer(template):
        text += template[last : slot.start()]
        value = _VALUES[slot[1]](draw, fake)
        spans.append(Finding(len(text), len(text) + len(value), _KINDS[slot[1]]))
        text, last = text + value, slot.end()
    return Labelled(text + template[last:], tuple(spans))


def _street(draw: random.Random, fake: Faker) -> str:
    """One line with a number."""
    while True:
        street = " ".join(fake.street_address().split())
        if any(character.isdigit() for character in street):
            return street


def _phone(draw: random.Random, fake: Faker) -> str:
    while True:
        number = str(fake.phone_number())
        if 9 <= sum(map(str.isdigit, number)) <= 13:
            return number


def _company(draw: random.Random, fake: Faker) -> str:
    return " ".join(fake.company().split())


def _card(draw: random.Random, fake: Faker) -> str:
    number = str(fake.credit_card_number(draw.choice(("visa16", "mastercard", "amex", "discover"))))
    groups = [number[:4], number[4:10], number[10:]] if len(number) == 15 else re.findall("....", number)
    return draw.choice(("", " ", "-")).join(groups)


def _iban(draw: random.Random, fake: Faker) -> str:
    """Of one of ten countries, with the check digits of ISO 13616."""
    country, form = draw.choice(_IBANS)
    account = "".join(draw.choice({"a": "BCDFGHJK", "n": "0123456789"}[kind]) for kind in form)
    digits = "".join(str(int(each, 36)) for each in f"{account}{country}00")
    number = f"{country}{98 - int(digits) % 97:02}{account}"
    return number if draw.random() < 0.5 else " ".join(re.findall(".{1,4}", number))


def _ssn(draw: random.Random, fake: Faker) -> str:
    parts = (str(draw.choice([*range(1, 666), *range(667, 900)])).zfill(3), f"{draw.randint(1, 99):02}")
    return draw.choice(("-", " ", ".")).join((*parts, f"{draw.randint(1, 9999):04}"))


def _date(draw: random.Random, fake: Faker) -> str:
    form = draw.choice(("%d/%m/%Y", "%m/%d/%y", "%Y-%m-%d", "%B %d, %Y", "%d %B %Y", "%d.%m.%Y", "%b %d", "%d-%b-%Y"))
    return str(fake.date_object().strftime(form))


def _one_of(*values: str) -> Callable[[random.Random, Faker], str]:
    return lambda draw, fake: draw.choice(values)


def _licence(draw: random.Random, fake: Faker) -> str:
    return draw.choice("ABCDEFGHJKLMNPRSTW") + "".join(draw.choices("0123456789", k=draw.choice((7, 8, 12))))


_VALUES: dict[str, Callable[[random.Random, Faker], str]] = {
    "person": lambda draw, fake: f"{fake.first_name()} {fake.last_name()}",
    "first": lambda draw, fake: str(fake.first_name()),
    "last": lambda draw, fake: str(fake.last_name()),
    "city": lambda draw, fake: str(fake.city()),
    "country": _one_of("Portugal", "Kenya", "South Korea", "the Netherlands", "Chile", "Norway", "Vietnam", "Egypt"),
    "mr": _one_of("Mr", "Mrs", "Ms", "Mr.", "Mrs.", "Ms.", "Dr.", "Prof."),
    "job": _one_of("head of sales", "accountant", "Chief Financial Officer", "store manager", "nurse", "data analyst"),
    "date": _date,
    "day": _one_of("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "year": lambda draw, fake: str(draw.randint(1890, 2024)),
    "street": _street,
    "postcode": lambda draw, fake: str(fake.postcode()),
    "company": _company,
    "phone": _phone,
    "email": lambda draw, fake: str(fake.email()),
    "card": _card,
    "iban": _iban,
    "ssn": _ssn,
    "ssn9": lambda draw, fake: _ssn(draw, fake).replace("-", "").replace(" ", "").replace(".", ""),
    "age": lambda draw, fake: str(draw.randint(2, 97)),
    "nation": _one_of("French", "Nigerian", "Polish", "Brazilian", "Korean", "Canadian", "Dutch", "Kenyan", "Spanish"),
    "ip": lambda draw, fake: str(draw.choice((fake.ipv4, fake.ipv6))()),
    "url": lambda draw, fake: str(fake.uri()),
    "domain": lambda draw, fake: str(fake.domain_name()),
    "licence": _licence,
}
