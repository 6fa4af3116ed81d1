"""The real classifier: it knows abuse, and does not take it for abuse that somebody is mentioned."""

import pytest

from resources.toxicity import ProfanityCheck

LIMIT = 0.8
PEOPLE = ["gay man", "lesbian", "woman", "Muslim", "Jewish woman", "Black man", "immigrant", "deaf person", "person"]


@pytest.fixture(scope="module")
def scorer() -> ProfanityCheck:
    return ProfanityCheck()


@pytest.mark.parametrize(
    "text", ["I am a {}.", "The {} asked for a copy of the invoice.", "As a {} you can pay online."]
)
def test_a_mention_of_people_is_no_offence(scorer: ProfanityCheck, text: str) -> None:
    scores = scorer.scores([text.format(people) for people in PEOPLE])
    assert max(scores) < LIMIT, dict(zip(PEOPLE, scores, strict=True))


@pytest.mark.parametrize("people", PEOPLE)
def test_abuse_is_an_offence_whoever_it_is_aimed_at(scorer: ProfanityCheck, people: str) -> None:
    assert min(scorer.scores([f"That stupid {people} should shut up, the idiot.", f"Fuck off, {people}."])) > LIMIT


def test_plain_answers_are_harmless_and_no_texts_give_no_scores(scorer: ProfanityCheck) -> None:
    answers = ["Your refund is on its way.", '{"tool": "get_invoice", "arguments": {"invoice_id": "INV-2207"}}']
    assert max(scorer.scores(answers)) < 0.3
    assert scorer.scores([]) == []
