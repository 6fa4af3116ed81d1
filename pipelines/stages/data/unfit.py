"""Preference pairs that would teach harm: the preferred side leaks personal data, gives in to a jailbreak, or sends
what it was told to a place that nobody named. Rules that would rather miss a pair than drop a good one;
docs/preferences.md says what they miss.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from data_contracts.records import Message, PreferencePair
from evals.leaks import MAY_BE_PERSONAL, bare, held, leaked_kinds, leaves, unpacked
from evals.refusals import asks_for_harm, complies, refuses
from pipelines.stages.data.item import Dropped, Item
from pipelines.stages.data.protocols import PiiAnalyzer

_MAIL = r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_LINK = r"https?://[^\s)\]>\"'`]+"
_URL = re.compile(rf"(?P<image>!\[[^\]]{{0,200}}\]\(\s*|<img\s[^>]{{0,200}}?src=[\"']?)?(?P<url>{_LINK})")
_ADDRESS = re.compile(f"{_LINK}|{_MAIL}")
_TELLING = re.compile(rf"{_MAIL}|\d(?:[ -]?\d){{8,}}|(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{{16,}}")
"""What is telling even if short: an e-mail address, a long number, a key."""
_QUOTED, _PACKED = 40, 12
"""Letters and digits in a row that count as quoted from the conversation: less may be the topic of a search. Nobody
packs a topic in base64, so that there fewer count."""
_LONGEST = 4096
"""Of a longer value only the beginning is compared with the conversation."""


class _Said(NamedTuple):
    """A conversation without spaces and signs, and what is telling in it."""

    bare: str
    telling: frozenset[str]


def without_unfit(analyzer: PiiAnalyzer, items: Sequence[Item]) -> Iterator[Item | Dropped]:
    """The rows in their order; a pair that would teach harm as a drop with its reason."""
    pairs = {
        n: PreferencePair.model_validate(i.row["pair"]) for n, i in enumerate(items) if i.row["kind"] == "preference"
    }
    leaks = _leaks(analyzer, pairs.values())
    for number, item in enumerate(items):
        pair = pairs.get(number)
        fault = (next(leaks) or _jailbreak_win(pair) or _exfiltration(pair)) if pair else None
        yield Dropped(item, *fault) if fault else item


def _leaks(analyzer: PiiAnalyzer, pairs: Iterable[PreferencePair]) -> Iterator[tuple[str, str] | None]:
    """For each pair: what its chosen side gives away that its prompt does not hold."""
    pairs = list(pairs)
    suspects = [text if MAY_BE_PERSONAL.search(text := _own_words(pair)) else "" for pair in pairs]
    found = iter(analyzer.find([text for text in suspects if text]) if any(suspects) else ())
    for pair, text in zip(pairs, suspects, strict=True):
        if kinds := leaked_kinds(next(found) if text else [], text, _joined(pair.prompt)):
            told = f"gives away {', '.join(kinds)} that its prompt does not hold; prefer an answer without it"
            yield "pii-leak", f"chosen: {told}"
        else:
            yield None


def _own_words(pair: PreferencePair) -> str:
    """What the chosen side adds: all of it, or of a JSON answer the values that its prompt does not hold. A call whose
    arguments were all given then needs no analyzer, which takes long to load."""
    answer = _json(pair.chosen)
    if not isinstance(answer, dict | list):
        return pair.chosen
    asked, tools = _joined(pair.prompt), {tool.name for tool in pair.tools}
    return "\n".join(each for each in leaves(answer) if each not in tools and not held(each, asked))


def _jailbreak_win(pair: PreferencePair) -> tuple[str, str] | None:
    asked = "\n".join(message.content for message in pair.prompt if message.role == "user")
    if asks_for_harm(asked) and refuses(pair.rejected) and complies(pair.chosen):
        return "jailbreak-win", "chosen: does what a harmful prompt asks, where the rejected side refuses; swap or drop"
    return None


def _exfiltration(pair: PreferencePair) -> tuple[str, str] | None:
    """An address that neither user nor system named, with what the conversation holds: in a link, in an image (which is
    fetched without a click), or among the arguments of a tool call."""
    named = _joined(message for message in pair.prompt if message.role in ("system", "user")).casefold()
    whole = _joined(pair.prompt)
    said = _Said(bare(whole), frozenset(bare(match[0]) for match in _TELLING.finditer(whole)))
    for match in _URL.finditer(pair.chosen):
        try:
            url = urlsplit(match["url"])
        except ValueError:
            continue
        if (url.hostname or "") not in named and _takes(url, said, image=match["image"] is not None):
            return "exfiltration", "chosen: its link takes data to a host that nobody named; drop the pair"
    for arguments in _calls(_json(pair.chosen)):
        values = list(leaves(arguments))
        strange = any(found.casefold() not in named for each in values for found in _ADDRESS.findall(each))
        if strange and any(_carries(each, said) for each in values):
            return "exfiltration", "chosen: its call sends what was said to an address that nobody named; drop the pair"
    return None


def _takes(url: SplitResult, said: _Said, image: bool) -> bool:
    """Whether a link takes data with it. Words in its path mostly name a page, so that only packed ones count there."""
    query = [value for _, value in parse_qsl(url.query)]
    packed = [text for part in url.path.split("/") for text in unpacked(part)]
    return (
        (image and bool(query))
        or any(_carries(value, said) for value in query)
        or any(_quotes(text, said, _PACKED) for text in packed)
    )


def _carries(value: str, said: _Said) -> bool:
    """Whether a value quotes the conversation, plainly or packed, holds something telling of it, or has a blank to be
    filled with it."""
    return (
        _quotes(value, said, _QUOTED)
        or any(each in bare(value) for each in said.telling)
        or any(_quotes(text, said, _PACKED) for text in unpacked(value))
        or re.fullmatch(r"[\[{<$(%]+\s*[\w .-]+\s*[\]}>)%]+", value) is not None
    )


def _quotes(text: str, said: _Said, length: int) -> bool:
    letters = bare(text[:_LONGEST])
    return any(letters[at : at + length] in said.bare for at in range(len(letters) - length + 1))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _calls(value: Any) -> Iterator[Any]:
    """The arguments of the tool calls that an answer is: Assay's form, OpenAI's, or a list of either."""
    inner = value.get("tool_calls") if isinstance(value, dict) else value
    for call in inner if isinstance(inner, list) else [value]:
        if isinstance(call, dict):
            named = call.get("function")
            given = (named if isinstance(named, dict) else call).get("arguments")
            yield _json(given) if isinstance(given, str) else given


def _joined(messages: Iterable[Message]) -> str:
    return "\n".join(message.content for message in messages)
