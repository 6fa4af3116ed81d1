"""The real analyzer: Presidio with its language model, and detect-secrets, with no network to reach."""

import json
import socket
from collections import Counter

import pytest

from pipelines.recipes.product import ROOT
from pipelines.stages.protocols import Finding
from resources.pii import PresidioAnalyzer

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
    assert analyzer.find([text]) == [[Finding(start, start + len(value), kind)]]


@pytest.mark.parametrize(
    "text",
    [
        "Please refund 25.00 for INV-1042.",
        "Apply the code SPRING20.",
        "Cancel my Premium plan.",
        "What did I pay in May?",
    ],
)
def test_a_billing_question_without_a_person_is_left_alone(analyzer: PresidioAnalyzer, text: str) -> None:
    assert analyzer.find([text]) == [[]]


@pytest.mark.skipif(not SAMPLES.exists(), reason="the labelled PII sample is not on this machine")
def test_recall_and_precision_on_labelled_text_stay_where_they_were_measured(analyzer: PresidioAnalyzer) -> None:
    rows = [json.loads(line) for line in SAMPLES.read_text().splitlines()]
    total, touched, wrong, found = Counter[str](), Counter[str](), 0, 0
    for row, findings in zip(rows, analyzer.find([row["full_text"] for row in rows]), strict=True):
        spans = [(s["start_position"], s["end_position"], s["entity_type"]) for s in row["spans"]]
        for start, end, kind in spans:
            total[kind] += 1
            touched[kind] += any(f.start < end and start < f.end for f in findings)
        found += len(findings)
        wrong += sum(not any(f.start < end and start < f.end for start, end, _ in spans) for f in findings)
    recall = {kind: touched[kind] / total[kind] for kind in total}
    assert recall["EMAIL_ADDRESS"] == recall["US_SSN"] == 1
    assert min(recall["IBAN_CODE"], recall["CREDIT_CARD"]) >= 0.85
    assert recall["PERSON"] >= 0.78
    assert recall["PHONE_NUMBER"] >= 0.5
    assert recall["GPE"] >= 0.5
    assert wrong / found < 0.05
