"""Sums that a text states, checked. Only + - * / on numbers, and "X % of Y is Z", are read; nothing is executed."""

import ast
import re
from fractions import Fraction

_LONGEST = 400
"""Characters of an expression: bounds the depth, time and size of what is computed."""
_DIGITS = 15
"""Of a number: so many, a float gives back as they were written."""

# Every repetition is bounded and the sum is an atomic group: the time is linear in the text.
_NUMBER = r"[0-9]{1,12}(?:[.,][0-9]{1,12}){0,4}"
_UNIT = r"(?:[ ]?(?:[$€£]|(?:USD|EUR|GBP|dollars?|euros?|pounds?)(?![A-Za-z])))?"
_TERM = rf"\({{0,3}}[ ]?-?[$€£]?[ ]?{_NUMBER}{_UNIT}[ ]?\){{0,3}}"
_OPERATOR = r"[ ]{0,2}(?:[-−–+*×·/÷]|[xX](?=[ ]{0,2}[$€£(]?[0-9]))[ ]{0,2}"
_EQUALS = r"[ ]{0,2}(?P<sign>=|≈|equals|is|makes|ist|sind|ergibt|est|es|è)[ ]{0,2}"
_MORE = r"[A-Za-z0-9]|[.,][0-9]|[ ]?(?:[%*×·/÷(+]|percent|Prozent|cents?\b|(?:and )?[0-9]|[-−–xX][ ]?[0-9])"
_RESULT = rf"(?P<result>-?[$€£]?[ ]?{_NUMBER})(?!{_MORE})"
_START = r"(?<![\w.,/+*×·÷−–-])"
_SUM = re.compile(rf"{_START}(?P<sum>(?>{_TERM}(?:{_OPERATOR}{_TERM}){{1,20}})){_EQUALS}{_RESULT}")
_SHARE = re.compile(
    rf"{_START}(?P<share>{_NUMBER})[ ]?(?:%|percent|Prozent)[ ](?:of|von|de|di)[ ]"
    rf"(?P<whole>[$€£]?{_NUMBER}{_UNIT}){_EQUALS}{_RESULT}"
)
_SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "·": "*", "x": "*", "X": "*", "÷": "/"})
_READINGS = ((",", "."), (".", ","))
"""Marks of thousands and of decimals."""


def evaluate(expression: str) -> Fraction:
    """Exact value of + - * / and parentheses over decimal numbers of at most 15 digits. Raises ``ValueError`` for
    anything else, a division by zero included."""
    if len(expression) > _LONGEST or not re.fullmatch(r"[0-9 .+\-*/()]+", expression):
        raise ValueError("is no plain arithmetic")
    if any(len(number) > _DIGITS for number in re.findall(r"[0-9.]+", expression)):
        raise ValueError("has too many digits")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as error:
        raise ValueError(f"cannot be computed: {type(error).__name__}") from None


def wrong_sums(text: str) -> int:
    """How many sums in the text do not come out. Where 1,250 may be read in two ways, one that comes out is enough; a
    result with decimals may be rounded, and so may any after ≈."""
    return sum(not right for right in sums(text))


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number):
            return Fraction(repr(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _value(left) + _value(right)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _value(left) - _value(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _value(left) * _value(right)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _value(left) / _value(right)
    raise ValueError("is no plain arithmetic")


def sums(text: str) -> list[bool]:
    """Whether each sum in the text comes out. Left out: the tail of a longer one, mixed numbers ("1 1/2"), and dates
    and ranges that look like one ("05/12 is", "2-3 is")."""
    right: list[bool] = []
    for found in _SUM.finditer(text):
        before = text[max(0, found.start() - 9) : found.start()].rstrip(" ").removesuffix("and").rstrip(" ")
        tight = re.search(r"[0-9][-−–/]|[-−–/][0-9]", found["sum"].lstrip("(- "))
        if before[-1:] not in (*"+-−–*×·xX/÷=%0123456789",) and not (tight and found["sign"] not in "=≈"):
            right += _verdict(found["sum"], found["result"], found["sign"])
    for found in _SHARE.finditer(text):
        right += _verdict(f"{found['share']} / 100 * {found['whole']}", found["result"], found["sign"])
    return right


def _verdict(expression: str, result: str, sign: str) -> list[bool]:
    """Whether the sum comes out; nothing where it cannot be read as one."""
    readings = []
    for thousands, point in _READINGS:
        try:
            value = evaluate(_balanced(_plain(expression.translate(_SIGNS), thousands, point)))
            readings.append(_comes_out(value, _plain(result, thousands, point).replace(" ", ""), sign == "≈"))
        except ValueError:
            continue
    return [any(readings)] if readings else []


def _plain(text: str, thousands: str, point: str) -> str:
    """Numbers as Python writes them, without currencies. Raises ``ValueError`` for a number that these two marks do not
    make, and for one like 0930, which is none."""

    def number(match: re.Match[str]) -> str:
        if not re.fullmatch(rf"(?:[0-9]{{1,3}}(?:\{thousands}[0-9]{{3}})+|[0-9]+)(?:\{point}[0-9]+)?", match[0]):
            raise ValueError("is written in another way")
        if re.match("0[0-9]", match[0]):
            raise ValueError("is a time or an identifier")
        return match[0].replace(thousands, "").replace(point, ".")

    return re.sub(_NUMBER, number, re.sub(r"[$€£A-Za-z]", "", text))


def _balanced(expression: str) -> str:
    """Without the parentheses of a sentence around the sum."""
    expression = expression.strip()
    while expression.count("(") > expression.count(")") and expression.startswith("("):
        expression = expression[1:].lstrip()
    return expression


def _comes_out(value: Fraction, stated: str, about: bool) -> bool:
    decimals = len(stated.partition(".")[2])
    gap = abs(value - Fraction(stated))
    return gap == 0 or ((about or decimals > 0) and gap <= Fraction(1, 2 * 10**decimals))
