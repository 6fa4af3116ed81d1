"""What changed between the champion's card and the candidate's: the text that an approval covers, and the same by
section for a reader."""

import difflib
import re
from typing import Literal

from data_contracts.frozen import Frozen

_HEADING = re.compile(r"^#{1,4} ")
FRONT = "Metadata"
_ALIKE = 0.4
"""The least similarity, as difflib measures it, of a line and the one that came in its place: of two lines that name
something by digest, hardly more than the words before it are alike."""


class Line(Frozen):
    sign: Literal["removed", "added"]
    text: str


class SectionDiff(Frozen):
    """A section in which something changed. ``change``: it is in both cards, or in one alone."""

    heading: str
    change: Literal["changed", "new", "gone"]
    lines: tuple[Line, ...]


def diff_cards(champion: str, candidate: str) -> str:
    """Unified diff from the champion's card (empty: there is no champion) to the candidate's."""
    lines = difflib.unified_diff(
        champion.splitlines(keepends=True), candidate.splitlines(keepends=True), "champion", "candidate"
    )
    return "".join(lines)


def by_section(champion: str, candidate: str) -> tuple[list[SectionDiff], list[str]]:
    """The sections that differ, in the candidate's order and then what is gone, and the headings of those that do
    not."""
    before, after = _sections(champion), _sections(candidate)
    differ: list[SectionDiff] = []
    for heading in [*after, *(each for each in before if each not in after)]:
        lines = _changes(before.get(heading, []), after.get(heading, []))
        if heading in before and heading in after:
            if lines:
                differ.append(SectionDiff(heading=heading, change="changed", lines=lines))
        else:
            change: Literal["new", "gone"] = "new" if heading in after else "gone"
            differ.append(SectionDiff(heading=heading, change=change, lines=lines))
    changed = {each.heading for each in differ}
    return differ, [heading for heading in after if heading not in changed]


def _sections(card: str) -> dict[str, list[str]]:
    """Heading -> its lines that are not empty; what stands before the first heading is the metadata. A second heading
    of the same words goes on with the first."""
    found: dict[str, list[str]] = {}
    heading = FRONT
    for line in card.splitlines():
        if _HEADING.match(line):
            heading = line.lstrip("# ")
            found.setdefault(heading, [])
        elif line.strip() and line != "---":
            found.setdefault(heading, []).append(line)
    return found


def _changes(before: list[str], after: list[str]) -> tuple[Line, ...]:
    found: list[Line] = []
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    for kind, first, last, start, end in matcher.get_opcodes():
        if kind != "equal":
            found += _paired(before[first:last], after[start:end])
    return tuple(found)


def _paired(removed: list[str], added: list[str]) -> list[Line]:
    """What is gone, then each line that came, after the one that it is most like."""
    waiting = list(removed)
    found: list[Line] = []
    for line in added:
        for near in difflib.get_close_matches(line, waiting, n=1, cutoff=_ALIKE):
            waiting.remove(near)
            found.append(Line(sign="removed", text=near))
        found.append(Line(sign="added", text=line))
    return [*(Line(sign="removed", text=line) for line in waiting), *found]
