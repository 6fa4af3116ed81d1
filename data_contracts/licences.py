"""What a licence asks of a model that learned from data under it, in words for the model card."""

from collections.abc import Iterable

from data_contracts.contract import NO_LICENCE, Terms

_DUTIES = {
    "-NC": "non-commercial: this model may not be used commercially",
    "-ND": "no derivatives: changed versions of the data may not be passed on",
    "-SA": "share-alike: what is passed on of the data keeps this licence",
    "CDLA-Sharing": "share-alike: what is passed on of the data keeps this licence",
    "CC-BY": "attribution: name the source",
    "LicenseRef-": "terms of its own: read them before use",
    NO_LICENCE: "no licence is stated: the right to use this model beyond research is not shown",
}
_RESTRICTING = ("-NC", "-ND", "LicenseRef-", NO_LICENCE)
_PERMITTED = {"allowed": "allow training", "unclear": "leave open whether training is allowed"}


def duties(licence: str) -> list[str]:
    """What an SPDX licence expression asks for, strictest first. The words are ours, the licence itself decides."""
    return [words for mark, words in _DUTIES.items() if mark in licence]


def vendor_terms(terms: Terms) -> list[str]:
    """Which model made the data and what its vendor's terms say of training."""
    made = terms.generatedBy
    return [] if made is None else [f"made by {made.model}, whose terms {_PERMITTED[made.training]} ({made.terms})"]


def restricts(licences: Iterable[str], terms: Iterable[Terms]) -> bool:
    """Whether the data narrows what the model may be used for, so that the base's licence alone would mislead."""
    return any(mark in licence for licence in licences for mark in _RESTRICTING) or any(
        each.generatedBy is not None and each.generatedBy.training == "unclear" for each in terms
    )
