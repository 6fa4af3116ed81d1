"""A row on its way through the data line, with its name and its terms."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from data_contracts.digests import Digest, sha256_bytes, sha256_json
from data_contracts.ledger import Origin

Row = dict[str, Any]

_RECORD = re.compile(r',"record":"sha256:[0-9a-f]{64}"(?=(?:,"split":"[a-z]+")?\}\Z)')


@dataclass(frozen=True)
class Item:
    """``name`` is the HMAC of ``text``, the row's canonical JSON; ``subject`` is a pseudonym."""

    name: Digest
    subject: str
    origin: Origin
    text: str

    @cached_property
    def row(self) -> Row:
        found: Row = json.loads(self.text)
        return found

    def known_as(self, content: Digest) -> "Item":
        """This item, of which `content` was taken before."""
        self.__dict__["content"] = content  # where a cached property keeps its value
        return self

    @cached_property
    def content(self) -> Digest:
        """Digest of what the row says, apart from the installation's names: all but ``record``."""
        if '"record":' not in self.text:
            return sha256_bytes(self.text.encode())
        # Keys are sorted: the field stands last, or before the split. Cutting it out saves writing the JSON again.
        rest, found = _RECORD.subn("", self.text)
        if found:
            return sha256_bytes(rest.encode())
        return content_of(self.row)


def content_of(row: Row) -> Digest:
    return sha256_json({key: value for key, value in row.items() if key != "record"})


@dataclass(frozen=True)
class Dropped:
    """A row that a step rejects: a code for the counts, a reason (without values of the row) for people."""

    item: Item
    code: str
    reason: str
