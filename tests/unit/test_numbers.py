"""The number that an answer ends on, as people write numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.numbers import Number, answered_number, is_right


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 42", 42),
        ("The answer is **1,234.50**. I am sure, 99%.", 1234.5),
        ("1.234,5 in all", 1234.5),
        ("that is 12 000", 12000),
        ("3,5", 3.5),
        ("0,125", 0.125),
        ("1'000", 1000),
        ("2,000,000", 2000000),
        ("half: 7/8", 0.875),
        ("about −3.2", -3.2),
        ("6.02 x 10^3", 6020),
        ("1.5e3", 1500),
        ("$18.00", 18),
        (r"so \boxed{-12}", -12),
        ("- 5 apples", 5),
        ("from 3-5", 5),
        ("2500 m", 2.5),
        ("It is 2.5 km, in 40 minutes.", 2.5),
        ("5 apples, then 7 more", 7),
        ("v1.2.3", None),
        ("none at all", None),
    ],
)
def test_the_number_that_an_answer_ends_on_is_read(text: str, value: float | None) -> None:
    found = answered_number(text, Number(value=0, units={"km": 1, "m": 0.001}))
    assert found == (None if value is None else pytest.approx(value))


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:,}", "{}", "the answer is {:,}.", "= {} in all"]))
def test_every_whole_number_is_read_back(value: int, form: str) -> None:
    assert is_right(form.format(value), Number(value=value))
