"""What an answer was told to keep to, checked by rule."""

from typing import Any

import pytest

from evals.constraints import Constraint


@pytest.mark.parametrize(
    ("constraint", "holding", "breaking"),
    [
        ({"check": "words", "least": 3, "most": 4}, "one two-fold don't", "one two three four five"),
        ({"check": "sentences", "least": 2, "most": 2}, "It rains. Go in!", "It rains."),
        ({"check": "sentences", "most": 1}, "It costs 2.50 crowns", "No. It does not."),
        ({"check": "paragraphs", "least": 2}, "a b\nc\n\nd", "a\nb"),
        ({"check": "bullets", "least": 2, "most": 2}, "- a\n- b", "- a\n- b\n* c"),
        ({"check": "bullets", "least": 2}, "1. a\n2) b", "1 a"),
        ({"check": "placeholders", "least": 1}, "Dear [name]", "Dear name"),
        ({"check": "contains", "texts": ["rain", "spade"]}, "Rain on a spade", "training with a spade"),
        ({"check": "contains", "texts": ["warm"], "least": 2}, "warm, warm", "warm"),
        ({"check": "lacks", "texts": ["cat"]}, "a concatenated thing", "the Cat"),
        ({"check": "starts", "texts": ["Indeed"]}, "indeed so", "so indeed"),
        ({"check": "ends", "texts": ["thanks.", "thanks"]}, "Many thanks.", "thanks a lot"),
        ({"check": "lower-case"}, "ünder 5", "Under"),
        ({"check": "upper-case"}, "BREAD!", "Bread"),
        ({"check": "upper-case"}, "BREAD", "5"),
        ({"check": "json"}, '```json\n["a"]\n```', '"a"'),
        ({"check": "no-commas"}, "a and b", "a, b"),
        ({"check": "quoted"}, '"so"', '"so" he said'),
        ({"check": "titled"}, "<<A goat>>\nOnce", "<A goat>"),
        ({"check": "language", "texts": ["de"]}, "Der Himmel ist blau, weil die Luft das Licht streut.",
         "The sky is blue because the air scatters the light."),
    ],
    ids=str,
)  # fmt: skip
def test_a_constraint_tells_what_keeps_it(constraint: dict[str, Any], holding: str, breaking: str) -> None:
    check = Constraint.model_validate(constraint)
    assert check.holds(holding)
    assert not check.holds(breaking)
    assert not check.holds(" ")
