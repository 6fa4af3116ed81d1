"""Scores from plain files, one row an item: what the gate needs to judge what another program has measured."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import Field, StrictInt, StringConstraints, ValidationError

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from data_contracts.frozen import Frozen
from data_contracts.verdicts import ItemScore
from evals.policy import PLAIN_METRIC, GatePolicy
from evals.protocols import Vouched

Name = Annotated[str, StringConstraints(strict=True, min_length=1)]


class ScoreRow(Frozen):
    """``score`` is in [0, 1], more is better. Items of one ``cluster`` are not independent; without one an item is its
    own. Names are text or whole numbers, 17 the same as "17". ``untrusted`` says why the score decides nothing, where a
    judge model gave it that does not count: `assay eval` writes it."""

    suite: Name
    item: Name | StrictInt
    cluster: Name | StrictInt | None = None
    score: float = Field(strict=True, ge=0, le=1, allow_inf_nan=False)
    untrusted: str = Field(default="", strict=True)


class Distrust(NamedTuple):
    """What a file says of the judge of its scores."""

    untrusted: str
    failed: int = 0


class PlainScores(NamedTuple):
    """One suite of one file, which is the ``artifact``. Of a judge it is told only why it does not count."""

    artifact: Digest
    items: tuple[ItemScore, ...]
    judged: Mapping[str, Vouched] = MappingProxyType({})


class ScoreFile(NamedTuple):
    """``source`` is the file's name; ``suites`` maps each suite to its scores."""

    source: str
    digest: Digest
    suites: Mapping[str, PlainScores]


_FIELDS = "a row has the fields suite, item and score, and may have cluster and untrusted"
_WANTED = {
    "score": "a number from 0 to 1, where more is better",
    "suite": "a text that is not empty",
    "untrusted": "a text",
}
_NAME = "a text that is not empty, or a whole number"


def score_file(source: str, digest: Digest, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> ScoreFile:
    """``rows`` are (zero-based line, fields). Raises `BadInput` naming file, line, field and remedy for the first row
    that does not fit, and for an item that comes twice in a suite."""
    suites: dict[str, list[ItemScore]] = {}
    lines: dict[tuple[str, str], int] = {}
    judged: dict[str, dict[str, Vouched]] = {}
    for line, fields in rows:
        row, where = _row(source, line, fields), f"{source}, line {line + 1}"
        item = str(row.item)
        first = lines.setdefault((row.suite, item), line)
        if first != line:
            raise BadInput(f"{where}: the field 'item': {item} of suite {row.suite} is on line {first + 1}; keep one")
        own = f"\0{item}"  # no cluster of a file is called so
        cluster = own if row.cluster is None else str(row.cluster)
        suites.setdefault(row.suite, []).append(ItemScore(item=item, cluster=cluster, scores={PLAIN_METRIC: row.score}))
        if row.untrusted:
            judged[row.suite] = {PLAIN_METRIC: Distrust(row.untrusted)}
    found = {name: PlainScores(digest, tuple(items), judged.get(name, {})) for name, items in suites.items()}
    return ScoreFile(source, digest, found)


def _row(source: str, line: int, fields: Mapping[str, Any]) -> ScoreRow:
    try:
        return ScoreRow.model_validate(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0])
        if fault["type"] == "missing":
            said = f"the field {name!r} is missing; {_FIELDS}"
        elif fault["type"] == "extra_forbidden":
            said = f"the field {name!r} is unknown; {_FIELDS}: take it out"
        else:
            said = f"the field {name!r} is {str(fields[name])[:60]!r}; give {_WANTED.get(name, _NAME)}"
        raise BadInput(f"{source}, line {line + 1}: {said}") from error


def paired_results(policy: GatePolicy, candidate: ScoreFile, baseline: ScoreFile) -> dict[str, PlainScores]:
    """``suite/subject`` -> scores, for the gate; the baseline stands for whatever a criterion is against.

    Raises `BadInput` for a criterion on another metric, for a suite of the policy that a file lacks, and where the two
    files have not the same items in the same clusters.
    """
    for criterion in policy.criteria:
        if criterion.metric != PLAIN_METRIC:
            raise BadInput(
                f"policy {policy.name}, criterion {criterion.name}: plain files have one score an item, no metric "
                f"{criterion.metric}: leave `metric` out, and give each metric a suite of its own"
            )
        for file in (candidate, baseline) if criterion.compares else (candidate,):
            if criterion.suite not in file.suites:
                raise BadInput(
                    f"{file.source} has no row of suite {criterion.suite}, which criterion {criterion.name} of policy "
                    f"{policy.name} asks for; its suites are {', '.join(sorted(file.suites))}: add its rows, or take "
                    "the criterion out"
                )
    results: dict[str, PlainScores] = {}
    for suite in sorted({criterion.suite for criterion in policy.criteria}):
        results[f"{suite}/candidate"] = candidate.suites[suite]
        if suite in baseline.suites:
            check_paired(suite, baseline, candidate)
            results |= dict.fromkeys((f"{suite}/base", f"{suite}/champion"), baseline.suites[suite])
    return results


def check_paired(suite: str, one: ScoreFile, other: ScoreFile) -> None:
    """Raises `BadInput` unless both files have the same items of the suite, each in the same cluster."""
    clusters = [{item.item: item.cluster for item in file.suites[suite].items} for file in (one, other)]
    for here, there, has, lacks in ((0, 1, one, other), (1, 0, other, one)):
        if alone := [item for item in clusters[here] if item not in clusters[there]]:
            raise BadInput(
                f"{lacks.source} lacks {len(alone)} of the {len(clusters[here])} items that {has.source} has in suite "
                f"{suite}, the first is {alone[0]}: score the same items in both"
            )
    for item, cluster in clusters[0].items():
        if clusters[1][item] != cluster:
            named = [_told(each[item]) for each in clusters]
            raise BadInput(
                f"item {item} of suite {suite} has {named[0]} in {one.source} and {named[1]} in {other.source}: "
                "give it the same in both"
            )


def unjudged(policy: GatePolicy, files: Sequence[ScoreFile]) -> dict[str, int]:
    """Suites that no criterion names, with their number of items: they decide nothing."""
    named = {criterion.suite for criterion in policy.criteria}
    found = {suite: len(scores.items) for file in files for suite, scores in file.suites.items()}
    return {suite: items for suite, items in sorted(found.items()) if suite not in named}


def _told(cluster: str) -> str:
    return "no cluster" if cluster.startswith("\0") else f"the cluster {cluster}"
