"""Calibrate a judge against people, and look up later whether its word counts.

A calibration is kept under the judge's identity: model, prompt, decoding, code. Change any of them and there is none:
the judge is untrusted until it is calibrated again. The newest counts; it names the set that it was made on.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput
from data_contracts.judging import Calibration, JudgePolicy
from data_contracts.store import ArtifactStore
from data_contracts.verdicts import Judged
from evals.judge import FAILED, INCONSISTENT, Fields, Judge, PromptJudge, RagasJudge, SetMapping, Verdict, judge_all
from evals.kappa import Pair, cohens_kappa
from evals.protocols import Embeds, JudgeEndpoint
from evals.stats import Score, StatsError, wilson


class Labelled(NamedTuple):
    """An item of a calibration set, under its line; ``label`` is people's, in the judge's words."""

    name: str
    cluster: str
    fields: Fields
    label: str


class LabelledSet(NamedTuple):
    items: tuple[Labelled, ...]
    left_out: int

    @property
    def digest(self) -> Digest:
        """Of the fields, labels and clusters that are used, however the file is laid out."""
        return sha256_json([[each.cluster, {**each.fields}, each.label] for each in self.items])


def read_set(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    mapping: SetMapping,
    where: str,
    sample: int | None = None,
    seed: int = 0,
) -> LabelledSet:
    """The items of (zero-based line, row), or a drawn sample of them in their order. Raises `BadInput` naming line,
    column and remedy for a row without a text or with a label that the mapping does not know."""
    items: list[Labelled] = []
    left_out = 0
    for line, row in rows:
        fields = {field: _text(row, column, where, line) for field, column in mapping.columns.items()}
        label = _cell(row, mapping.label, where, line)
        if label not in mapping.labels:
            known = ", ".join(map(repr, mapping.labels))
            raise BadInput(
                f"{where}, line {line + 1}: the label {label!r} in {mapping.label!r} is none of {known}: add it to the "
                "mapping's labels"
            )
        word = mapping.labels[label]
        if word is None:
            left_out += 1
            continue
        cluster = str(line) if mapping.cluster is None else _cell(row, mapping.cluster, where, line)
        items.append(Labelled(str(line), sha256_json(cluster), fields, word))
    if sample is not None and sample < len(items):
        drawn = random.Random(seed).sample(range(len(items)), sample)
        items = [items[place] for place in sorted(drawn)]
    return LabelledSet(tuple(items), left_out)


def calibrate(
    judge: Judge,
    endpoint: JudgeEndpoint,
    labelled: LabelledSet,
    embedder: Embeds | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Ask the judge about every item and compare. Raises `BadInput` for a set on which no kappa can be computed, before
    anything is asked."""
    try:
        cohens_kappa([Pair(each.cluster, each.label, each.label) for each in labelled.items])
    except StatsError as error:
        raise BadInput(f"the calibration set ({len(labelled.items)} items): {error}") from error
    fields = {each.name: each.fields for each in labelled.items}
    return _measured(judge, labelled, judge_all(judge, endpoint, fields, embedder, progress))


def _measured(judge: Judge, labelled: LabelledSet, verdicts: Mapping[str, Verdict]) -> Calibration:
    file = judge.file
    pairs = [Pair(each.cluster, each.label, verdicts[each.name].word) for each in labelled.items]
    kappa = cohens_kappa(pairs, file.verdicts if file.ordered else None)
    given = [verdicts[each.name] for each in labelled.items]
    asked = sum(verdict.asked for verdict in given)
    failures = Counter(why for verdict in given for why in verdict.failures)
    consistency = None
    if file.asks == "pairwise":
        consistency = _share([verdict.word not in (INCONSISTENT, FAILED) for verdict in given])
    words = (*file.verdicts, INCONSISTENT, FAILED)
    counts = {
        label: {word: count for word in words if (count := sum(p.label == label and p.verdict == word for p in pairs))}
        for label in sorted({pair.label for pair in pairs})
    }
    return Calibration(
        judge=judge.identity,
        name=file.name,
        served_model=judge.model,
        set=labelled.digest,
        items=len(pairs),
        clusters=len({pair.cluster for pair in pairs}),
        left_out=labelled.left_out,
        counts=counts,
        agreement=sum(pair.label == pair.verdict for pair in pairs) / len(pairs),
        kappa=kappa.estimate,
        kappa_low=kappa.low,
        kappa_high=kappa.high,
        consistency=None if consistency is None else consistency[0],
        consistency_low=None if consistency is None else consistency[1],
        first_place=_first_place(file, given),
        asked=asked,
        failures=dict(sorted(failures.items())),
        failed_high=_share([n < failures.total() for n in range(asked)])[2],
    )


def keep(store: ArtifactStore, calibration: Calibration) -> Digest:
    """Put it into the store, in place of an earlier one of the same judge."""
    digest = store.put_manifest(calibration)
    store.put_action(_key(calibration.judge), digest)
    return digest


class Sitting(NamedTuple):
    """A judge in use: its endpoint, the calibration that it goes by, and why it does not count, if so."""

    judge: Judge
    endpoint: JudgeEndpoint
    policy: Digest
    calibration: Digest | None
    untrusted: str

    def judged(self, failed: int) -> Judged:
        """What a result says of its judge."""
        return Judged(
            judge=self.judge.identity,
            policy=self.policy,
            calibration=self.calibration,
            untrusted=self.untrusted,
            failed=failed,
        )


def seat(store: ArtifactStore, judge: Judge, endpoint: JudgeEndpoint, policy: JudgePolicy) -> Sitting:
    """The judge with its newest calibration, if there is one that holds for it as it is now."""
    known = store.get_action(_key(judge.identity))
    if known is None or not store.has(known):
        what = "nothing for this model, prompt, decoding and code"
        reason = f"judge {judge.file.name} ({judge.model}) is not calibrated ({what}): `assay judge calibrate`"
        return Sitting(judge, endpoint, store.put_manifest(policy), None, reason)
    reason = store.get_manifest(known, Calibration).distrust(policy)
    untrusted = reason and f"judge {judge.file.name} ({judge.model}) is not trusted: {reason}"
    return Sitting(judge, endpoint, store.put_manifest(policy), known, untrusted)


def _key(judge: Digest) -> Digest:
    return sha256_json({"calibration-of": judge})


def _first_place(file: PromptJudge | RagasJudge, verdicts: Sequence[Verdict]) -> float | None:
    """Share of the words that name the answer shown first, of a pairwise judge that named one at all."""
    if file.asks != "pairwise":
        return None
    said = [file.verdicts[word] for verdict in verdicts for word in verdict.words if file.verdicts[word] != 0.5]
    return round(sum(said) / len(said), 6) if said else None


def _share(hits: Sequence[bool]) -> tuple[float, float, float]:
    return wilson([Score(str(n), str(n), float(hit)) for n, hit in enumerate(hits)])


def _text(row: Mapping[str, Any], column: str, where: str, line: int) -> str:
    value = row.get(column)
    if isinstance(value, str):
        return value
    found = f"is no text but a {type(value).__name__}" if column in row else "is missing"
    raise BadInput(
        f"{where}, line {line + 1}: the column {column!r} {found}; its columns are: {', '.join(row) or 'none'}. Name "
        "the right one in a mapping (--mapping)"
    )


def _cell(row: Mapping[str, Any], column: str, where: str, line: int) -> str:
    """A label or a cluster: a text, a number, true or false."""
    value = row.get(column)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise BadInput(
        f"{where}, line {line + 1}: the column {column!r} holds no value; its columns are: {', '.join(row) or 'none'}. "
        "Name the right one in a mapping (--mapping)"
    )
