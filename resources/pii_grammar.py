"""What the patterns of personal data are made of: capitalised words, names of several words, a kind of pattern."""

from typing import NamedTuple

GAP = r"[ \t]+"
WORD = r"(?:\p{Lu}(?:\p{L}{0,2}\.|[\p{L}\p{M}'’-]*+))"
LINK = (
    r"(?:(?:d['’]|l['’]|de\s+l['’])(?=\p{L})|(?:a|and|an|da|das|de|del|della|den|der|di|do|dos|du|e|el|i|la|las|le|"
    r"les|los|nad|of|på|the|u|van|ved|von|y|zum|zur)[ \t]+)"
)
NAME = rf"(?:{LINK}{{0,2}}{WORD})"
NAMES = rf"{NAME}(?:{GAP}{NAME}){{0,4}}"
_PARTICLE = r"(?:(?:da|das|de|del|della|den|der|di|do|dos|du|el|la|le|ten|ter|van|von|y|zu)[ ])"
WHO = rf"{WORD}(?:[ ]{_PARTICLE}{{0,2}}{WORD}){{0,3}}"
"""A name of up to four words, as people and companies have it."""


class Pattern(NamedTuple):
    """An expression of the `regex` module. ``score`` says how sure it is alone; ``flags`` "i": in any case."""

    kind: str
    score: float
    expression: str
    flags: str = ""
