"""Under which terms a record comes in: what its contract states, and what the record itself does."""

from datetime import date

from data_contracts.contract import NO_LICENCE, DataContract, spdx
from data_contracts.ledger import ConsentBasis, CorrectedAnswer, Origin
from data_contracts.manifests import SourceRef
from pipelines.stages.data.feedback import SCHEME
from pipelines.stages.data.item import Row

_BASES: dict[str, ConsentBasis] = {
    each: each for each in ("consent", "contract", "legitimate-interest", "synthetic", "public-licence")
}


class Origins:
    """What the contract and a record state; what nobody states is NOASSERTION and none, which no policy allows."""

    def __init__(self, contract: DataContract, ref: SourceRef) -> None:
        self._contract, self._ref = contract, ref
        self._known: dict[tuple[str, ...], Origin] = {}

    def of(self, values: Row) -> Origin:
        terms = self._contract.terms
        stated = tuple(
            str(values.get(field or "") or "")
            for field in (terms.licenceField, terms.consentField, terms.syntheticDepthField, terms.retainUntilField)
        )
        if self._ref.url.startswith(SCHEME):
            stated += str(values.get("answer") or ""), str(values.get("release") or "")
        if stated not in self._known:
            licence, consent, depth, last_day, *answer = stated
            self._known[stated] = Origin(
                source=self._ref.url,
                source_digest=self._ref.content,
                contract=self._ref.contract,
                licence=terms.licence or spdx(licence) or NO_LICENCE,
                consent=terms.consent or _BASES.get(consent, "none"),
                purposes=terms.purposes,
                retain_until=min(filter(None, (terms.retainUntil, _last_day(last_day))), default=None),
                tier=terms.tier,
                synthetic_depth=max(terms.syntheticDepth, _depth(depth)),
                answer=CorrectedAnswer(trace_id=answer[0], release=answer[1] or None) if answer and answer[0] else None,
            )
        return self._known[stated]


def _depth(value: object) -> int:
    """A depth that a record states; where it is none, the record breaks its contract and comes no further. Every store
    holds 31 bits."""
    try:
        return min(int(str(value)), 2**31 - 1)
    except ValueError:
        return 0


def _last_day(value: str) -> date | None:
    """A last day that a record states; where it is none, the record breaks its contract and comes no further."""
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None
