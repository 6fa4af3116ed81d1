"""From what raters say to which answer of a pair is preferred, and whether they agree enough to be learned from."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import JsonValue, TypeAdapter, ValidationError

from data_contracts.digests import Digest
from data_contracts.errors import Refused
from data_contracts.ratings import Label, PreferenceRule, Rating
from evals.agreement import Rated, agreement, majority, rater_reports, spread
from evals.stats import StatsError
from pipelines.recipes.mapping import RatedColumns, RaterColumns
from pipelines.recipes.product import Source
from pipelines.stages.data.item import Dropped, Item

_RATINGS = TypeAdapter(tuple[Rating, ...])


class Ruling(NamedTuple):
    """The preferred answer, or none and why. ``by`` says who decided: an adjudicator, the majority, or nobody."""

    better: Label | None
    by: str
    reason: str = ""


def ratings_of(source: Source, record: Mapping[str, Any]) -> tuple[Rating, ...] | None:
    """The ratings of a record; ``None`` where it has none. Raises ``ValueError`` naming field and remedy."""
    mapping = source.mapping
    if isinstance(mapping, RatedColumns) and isinstance(mapping.ratings, RaterColumns):
        found = _from_columns(mapping.ratings, record, source.url)
    elif isinstance(mapping, RatedColumns):
        found = _from_list(str(mapping.ratings), record)
    elif mapping is None and source.kind == "preference" and "ratings" in record:
        found = _from_list("ratings", record)
    else:
        return None
    if len({(each.rater, each.adjudicator) for each in found}) < len(found):
        raise ValueError("ratings: a rater rates the pair twice; keep one of the two")
    return found


def adjudicate(ratings: Sequence[Rating]) -> Ruling:
    """An adjudicator's decision wins, else what more than half of the raters say. A tie, two adjudicators who differ,
    and raters without a majority prefer nothing."""
    final = [rating.label for rating in ratings if rating.adjudicator]
    label = majority(final or [rating.label for rating in ratings])
    if label is None:
        why = "its raters do not agree on the better answer; have it adjudicated" if ratings else "nobody rated it"
        return Ruling(None, "nobody", why)
    if label == "tie":
        return Ruling(None, "nobody", "its answers are tied, so that neither is better to learn from")
    return Ruling("first" if label == "first" else "second", "adjudicator" if final else "majority")


class Ballot:
    """Rules on rated pairs, one record at a time, and says at the end how far their raters agree."""

    def __init__(self, sources: Mapping[str, Source], rule: PreferenceRule | None) -> None:
        self._sources, self._rule = sources, rule
        self._rated: dict[Digest, tuple[Rating, ...]] = {}
        self._decided: Counter[str] = Counter()

    def settle(self, record: Item) -> Label | Dropped:
        """The answer to prefer of a record, or why it goes out. A pair that nobody rates, and a conversation, keep the
        answer that stands first."""
        source, rule = self._sources[record.row["source"]], self._rule
        found = ratings_of(source, record.row["values"])
        if source.kind == "sft" or (found is None and rule is None):
            return "first"
        ratings = tuple(each for each in found or () if _counts(each, rule))
        self._rated[record.name] = ratings
        ruling, raters = adjudicate(ratings), sum(not each.adjudicator for each in ratings)
        if rule and raters < rule.min_raters:
            under = f" under the guidelines {', '.join(rule.guidelines)}" if rule.guidelines else ""
            reason = f"{raters} rated it{under}, the policy's min_raters is {rule.min_raters}; have it rated"
            return Dropped(record, "too-few-raters", f"{source.url}: {reason}")
        if ruling.better is None:
            return Dropped(record, "raters-disagree", f"{source.url}: {ruling.reason}")
        self._decided[ruling.by] += 1
        return ruling.better

    def facts(self, pseudonym: Callable[[str], str]) -> dict[str, JsonValue]:
        """What the manifest says of the raters; ``pseudonym`` makes a keyed hash of a rater's name. Raises `Refused`
        where the raters under a version of the guidelines agree less than the policy demands, or too few pairs show
        how far they do."""
        if not any(self._rated.values()):
            return {}
        return {"ratings": _facts(self._rated, self._decided, self._rule, pseudonym)}


def _counts(rating: Rating, rule: PreferenceRule | None) -> bool:
    return rule is None or not rule.guidelines or rating.guidelines in rule.guidelines


def _facts(
    rated: Mapping[Digest, tuple[Rating, ...]],
    decided: Mapping[str, int],
    rule: PreferenceRule | None,
    pseudonym: Callable[[str], str],
) -> JsonValue:
    """What the manifest says of the raters; names are keyed hashes."""
    versions: defaultdict[str, list[Rated]] = defaultdict(list)
    for pair, ratings in sorted(rated.items()):
        for each in ratings:
            if not each.adjudicator:
                versions[each.guidelines].append(Rated(pair, pseudonym(f"rater:{each.rater}"), each.label))
    reports = rater_reports([each for ratings in versions.values() for each in ratings], tie="tie")
    return {
        "pairs": len(rated),
        "decided_by": dict(sorted(decided.items())),
        "not_unanimous": sum(len({r.label for r in ratings if not r.adjudicator}) > 1 for ratings in rated.values()),
        "guidelines": {version: _measured(version, ratings, rule) for version, ratings in sorted(versions.items())},
        "raters": {rater: {**report._asdict()} for rater, report in reports.items()},
        "spread": {**spread(reports)},
    }


def _measured(version: str, ratings: Sequence[Rated], rule: PreferenceRule | None) -> JsonValue:
    """Alpha of a version of the guidelines. The policy's minimum is held against the lower end of its interval: a few
    pairs that happen to agree do not show that raters do."""
    least = rule.min_alpha if rule else None
    remedy = "clear up the guidelines and have the pairs rated again, or leave the source out"
    try:
        found = agreement(ratings)
    except StatsError as error:
        if least is not None:
            raise Refused(
                f"raters under the guidelines {version}: {error}; the policy's min_alpha is {least:g}: {remedy}"
            ) from error
        return {"alpha": None, "reason": str(error)}
    if least is not None and found.low < least:
        more = "have more pairs rated by two, or " if found.alpha >= least else ""
        raise Refused(
            f"raters under the guidelines {version} are not shown to agree enough: Krippendorff's alpha is "
            f"{found.alpha:.3f} (95% interval {found.low:.3f} to {found.high:.3f}, {found.items} pairs, {found.raters} "
            f"raters), and the policy's min_alpha of {least:g} must not lie above its lower end: {more}{remedy}"
        )
    return {name: round(value, 4) for name, value in found._asdict().items()}


def _from_columns(raters: RaterColumns, record: Mapping[str, Any], url: str) -> tuple[Rating, ...]:
    """One rating a filled column. Columns of that name in another source are other raters."""
    found = []
    for column in (*raters.columns, *([raters.adjudicator] if raters.adjudicator else [])):
        value = record.get(column)
        if value is None or value == "":
            continue
        if str(value) not in raters.labels:
            known = ", ".join(raters.labels)
            raise ValueError(
                f"{column}: is none of the mapping's labels ({known}); correct it or add its meaning there"
            )
        found.append(
            Rating(
                rater=f"{url} {column}",
                label=raters.labels[str(value)],
                guidelines=raters.guidelines,
                adjudicator=column == raters.adjudicator,
            )
        )
    return tuple(found)


def _from_list(field: str, record: Mapping[str, Any]) -> tuple[Rating, ...]:
    value = record.get(field)
    try:
        return _RATINGS.validate_python(json.loads(value) if isinstance(value, str) else value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (field, *first["loc"]))
        raise ValueError(f"{where}: {first['msg']}; a rating has rater, label and guidelines") from error
    except ValueError as error:
        raise ValueError(f"{field}: is text that is not JSON; write a JSON list of ratings") from error
