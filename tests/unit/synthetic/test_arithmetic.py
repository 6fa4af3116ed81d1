"""Sums in a text: those that come out, those that do not, and that nothing but arithmetic is ever computed."""

import ast
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.stages.data.synthetic.arithmetic import evaluate, wrong_sums

RIGHT = [
    "So it is 12.50 + 3 = 15.50.",
    "20 % of 50 is 10",
    "20% of $50.00 = $10.",
    "20 % von 50 sind 10, Sie zahlen also 40 Euro.",
    "10 / 3 = 3.33, and 100 / 3 ≈ 33",
    "(2 + 3) * 4 = 20 (and 12 + 3 = 15)",
    "1,250 + 1 = 1,251",
    "1.250,50 € + 1 = 1.251,50",
    "3 x 4 = 12 and 3 × 4 equals 12 and 12 ÷ 4 = 3",
    "€12.50 + 3 EUR makes €15.50",
    "0.1 + 0.2 = 0.3",
    "2 - -3 = 5",
]
WRONG = [
    "So it is 12.50 + 3 = 15.60.",
    "20 % of 50 is 12",
    "20 % von 50 ist 11",
    "10 / 3 = 3.34",
    "10/3 = 3",
    "7 / 2 = 4",
    "(and 12 + 3 = 16)",
    "1,250 + 1 = 1,252",
    "3 × 4 equals 13",
    "12,50 + 3 = 15,40",
]
NO_SUM = [
    "The invoice of 05/12 is 20.00",
    "2-3 is what you need",
    "INV-3101 - 5 = 3",
    "50 - 20% = 40",
    "5 + 3 = 4 * 2",
    "Call 555-0101",
    "10:30 is 5 minutes late",
    "3 / 2 = 1 1/2, and 4 / 3 = 1 and 1/3",
    "6 x 1 1/2 = 9 and 8 * 2 and 1/4 = 18",
    "where 2x-5 = 13",
    "$1 / 2 = 50 cents",
    "0930-0130 = 0800 hours",
    "9 boxes x 2/3 = 6 boxes",
    " + ".join(["1"] * 30) + " = 31",
]


@pytest.mark.parametrize("text", RIGHT)
def test_a_sum_that_comes_out_passes(text: str) -> None:
    assert wrong_sums(text) == 0


@pytest.mark.parametrize("text", WRONG)
def test_a_sum_that_does_not_is_found(text: str) -> None:
    assert wrong_sums(text) == 1


@pytest.mark.parametrize("text", NO_SUM)
def test_what_only_looks_like_a_sum_is_left_alone(text: str) -> None:
    assert wrong_sums(text) == 0


money = st.decimals(min_value=0, max_value=10**6, places=2).map(lambda value: value.quantize(Decimal("0.01")))


@given(st.lists(money, min_size=2, max_size=6), st.sampled_from("+-*"), st.integers(min_value=1, max_value=999))
def test_a_stated_sum_is_judged_as_exact_arithmetic_judges_it(terms: list[Decimal], sign: str, off: int) -> None:
    expression = f" {sign} ".join(map(str, terms))
    exact = evaluate(expression)
    stated = Decimal(exact.numerator * 10**4) / Decimal(exact.denominator) / 10**4
    if len(str(stated).replace("-", "").partition(".")[0]) > 12 or Fraction(stated) != exact or "E" in str(stated):
        return  # not written out
    assert wrong_sums(f"In all {expression} = {stated}") == 0
    assert wrong_sums(f"In all {expression} = {stated + off}") == 1


@given(st.text(alphabet="0123456789.+-*/() \n_xeEjL[]{}'\"=<>:,abc\0", max_size=60))
def test_only_plain_arithmetic_is_evaluated(text: str) -> None:
    allowed = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Constant, ast.operator, ast.unaryop)
    try:
        value = evaluate(text)
    except ValueError:
        return
    tree = ast.parse(text.strip(), mode="eval")
    assert all(isinstance(node, allowed) for node in ast.walk(tree))
    assert not any(isinstance(node, ast.Pow | ast.FloorDiv | ast.Mod) for node in ast.walk(tree))
    assert isinstance(value, Fraction)


@pytest.mark.parametrize(
    "text",
    [
        *("2 ** 9", "9 // 2", "9 % 2", "__import__('os')", "1 if 1 else 2", "(1, 2)", "1 < 2", "1j", "0x10", "1_0"),
        *("", "()", "1 / 0", "1 2", "1.2.3", "1" * 16, "9" * 400, "1 +" * 200 + "1", "(" * 250 + "1" + ")" * 250),
    ],
)
def test_everything_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        evaluate(text)


def test_a_deep_expression_does_no_harm() -> None:
    assert evaluate("-" * 399 + "1") == -1
    assert evaluate("(" * 199 + "1" + ")" * 199) == 1


@pytest.mark.parametrize(
    "piece", ["1", "(", " ", "1 + ", "1,", "1  +  1  ", "20 % of ", "- ", "(1 )", "$ ", "1.", "=", "9 = "]
)
def test_a_long_text_takes_no_long_time(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    started = time.process_time()
    wrong_sums(text)
    assert time.process_time() - started < 5


@given(st.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert wrong_sums(text) >= 0
