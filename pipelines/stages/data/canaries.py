"""Canaries on their way through the data line: planted as rows of a source, counted again after scrubbing and at its
end. Facts name them by id and form, never by secret."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from data_contracts.digests import Digest
from evals.planted import canaries, holds
from pipelines.recipes.product import Planted, Product
from pipelines.stages.data.item import Item, Row
from pipelines.stages.data.texts import whole

CANARY_MODULES = ("pipelines.stages.data.canaries", "evals.planted")
"""Modules that a step's result depends on where it counts canaries."""


class Standing(NamedTuple):
    """A canary whose row is still there, and whether its secret stands in it, whole."""

    id: str
    form: str
    whole: bool


def canary_rows(planted: Planted) -> Iterator[Row]:
    """Rows of the contract ``canaries``: a plain question, and an answer that gives the secret away."""
    for each in canaries(planted):
        said = {"user": each.question, "assistant": each.answer}
        yield {
            "id": each.id,
            "form": each.form,
            "account": each.account,
            "messages": [{"role": role, "content": text} for role, text in said.items()],
        }


class Watch:
    """Knows a product's canaries when they come along."""

    def __init__(self, product: Product) -> None:
        self._planted = product.planted()
        self._known = {each.id: each for each in canaries(self._planted)} if self._planted else {}
        self.found: dict[Digest, Standing] = {}

    def see(self, item: Item) -> bool:
        """Whether a row is a canary, told by its group and its source; then ``found`` has it by name."""
        each = self._known.get(item.row["group"])
        if each is None or Planted.by(item.origin.source) != self._planted:
            return False
        self.found[item.name] = Standing(each.id, each.form, holds(whole(item.row), each.secret))
        return True

    def scrubbed(self) -> dict[str, Any]:
        """The fact ``canaries``: how many were planted, how many came as far as here, and of which forms the secret is
        still whole."""
        if self._planted is None:
            return {}
        left = Counter(each.form for each in self.found.values() if each.whole)
        return {
            "canaries": {
                "planted": self._planted.count,
                "scrubbed": len(self.found),
                "whole": left.total(),
                "whole_by_form": dict(sorted(left.items())),
            }
        }

    def learned(self) -> dict[str, Any]:
        """The fact ``learned_canaries``: which are among the rows to learn from, by id: those whose secret scrubbing
        left whole, and those whose secret it removed."""
        if self._planted is None:
            return {}
        left = sorted(each.id for each in self.found.values() if each.whole)
        removed = sorted(each.id for each in self.found.values() if not each.whole)
        return {"learned_canaries": self._planted.payload() | {"left": left, "removed": removed}}
