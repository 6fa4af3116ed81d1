"""Whether the arguments of a call have a ground: each value was said in the conversation, or is one that the tool
declares. What has none was made up. A heuristic: a value that was derived rightly (a sum, a synonym) counts as made up.
"""

import re
from collections.abc import Mapping
from typing import Any

from evals.leaks import bare, held, leaves
from evals.numbers import numbers

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_SAID = {word: float(value) for value, word in enumerate(_WORDS)} | {"once": 1, "twice": 2, "dozen": 12, "half": 0.5}
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_TELLING = 6
"""Letters and digits from which on a value that stands within other ones is no chance."""
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T.*)?")


def grounded(arguments: Mapping[str, Any], declared: Mapping[str, Any], said: str) -> bool:
    """Whether every value has a ground in what was ``said``. ``declared`` maps a name to its JSON schema; a truth value
    needs none."""
    return all(_has_ground(value, declared.get(name, {}), said) for name, value in arguments.items())


def _has_ground(value: Any, declared: Mapping[str, Any], said: str) -> bool:
    allowed = [*declared.get("enum", ()), declared.get("default"), declared.get("const")]
    return value in allowed or all(_was_said(leaf, said) for leaf in leaves(value))


def _was_said(leaf: str, said: str) -> bool:
    if leaf in ("True", "False", "") or (len(bare(leaf)) >= _TELLING and held(leaf, said)):
        return True
    heard = set(re.findall(r"\w+", said.casefold()))
    written = list(numbers(said))
    told = {_SAID[word] for word in heard if word in _SAID} | {each.value for each in written}
    told |= {each.value / 100 for each in written if each.unit in ("%", "percent")}
    if date := _DATE.fullmatch(leaf):
        year, month, day = map(int, date.groups())
        return day in told and (year in told or month in told or _MONTHS[(month - 1) % 12] in said.casefold())
    number = next(numbers(leaf), None)
    if number and re.fullmatch(r"[\W\d]+", leaf):
        return number.value in told
    singular = {word.removesuffix("s") for word in heard}
    return all(word.removesuffix("s") in singular for word in re.findall(r"\w+", leaf.casefold()))
