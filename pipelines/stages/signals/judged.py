"""What the product's judge model says of the answers that are kept in words: how many of a window are good. A judge's
word counts while it is calibrated; until then it is shown. Its own windows, since a judge may be slow or away."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from data_contracts.digests import Digest, sha256_json
from data_contracts.errors import BadInput, Unavailable
from data_contracts.feedback import Exchange
from data_contracts.frozen import Frozen
from data_contracts.traces import Position, SealedWindow
from evals.calibration import Sitting, seat
from evals.judge import FAILED, Fields, Judge, RagasJudge, judge_all, load_judge
from pipelines.recipes.product import KeptJudge, Product
from pipelines.stages.protocols import Parts
from pipelines.stages.signals.exchanges import answered_by, asked, begun, said
from pipelines.stages.signals.policy import SignalPolicy
from pipelines.stages.signals.traces import Traffic, kept, live_release

METER = "judged_quality"
_KNOWN = frozenset({"question", "response", "criteria"})
_MOST = 10
"""Windows that are judged at one look: each asks so many questions as it has answers."""
_BACK = timedelta(days=7)
"""Of what waits longer only the release's first window is judged: the meter tells of now, not of a backlog."""


class Judged(Frozen):
    """``traffic`` is ``None`` where the product names no judge. ``untrusted``: why its word does not count, if so."""

    product: str
    traffic: Traffic | None = None
    untrusted: str = ""


def judged(parts: Parts, product: Product, policy: SignalPolicy, now: datetime | None = None) -> Judged:
    """Of the release that is live by the audit log. A judge that cannot be asked is untrusted, and raises nothing: the
    other meters go on."""
    named = product.keep.judge if product.keep else None
    if named is None:
        return Judged(product=product.name)
    release = live_release(parts, product)
    empty = Traffic(product=product.name, release=release, policy=policy.digest, reference=None, current=())
    try:
        sitting, allowed = _seated(parts, named)
    except BadInput as error:
        return Judged(product=product.name, traffic=empty, untrusted=str(error))
    shape = sha256_json(["judged", policy.exchanges, sitting.judge.identity, named.criteria, named.passes])
    away = ""
    if release is not None:
        try:
            _seal(parts, product.name, release, policy, shape, sitting, named, now or datetime.now(UTC))
        except Unavailable as error:
            away = f"judge {sitting.judge.file.name} ({sitting.judge.model}) cannot be asked: {error}"
    found = kept(parts, product, release, policy, shape)
    return Judged(
        product=product.name,
        traffic=found,
        untrusted=sitting.untrusted or away or _speechless(found, policy, allowed),
    )


def _seated(parts: Parts, named: KeptJudge) -> tuple[Sitting, float]:
    """The judge, and on which share of answers it may give no verdict. Raises `BadInput`."""
    file, model = load_judge(named.task), parts.judge_of(named)
    if strange := sorted(file.fields() - _KNOWN):
        raise BadInput(f"keep.judge: {named.task} asks about {', '.join(strange)}, which is not known of live answers")
    return seat(parts.store, Judge(file, model.model, model.template), model.endpoint, model.policy), (
        model.policy.max_failed
    )


def _speechless(found: Traffic, policy: SignalPolicy, allowed: float) -> str:
    """Whether it gave no verdict on too many answers of the newest windows, which would make the rest a selection."""
    newest = found.current[-policy.windows :]
    failed, n = sum(each.counts[METER]["failed"] for each in newest), sum(each.answers for each in newest)
    if failed <= allowed * n:
        return ""
    return f"the judge gave no verdict on {failed} of the {n} answers of the newest windows; {allowed:.0%} may lack one"


def _seal(
    parts: Parts,
    product: str,
    release: Digest,
    policy: SignalPolicy,
    shape: Digest,
    sitting: Sitting,
    named: KeptJudge,
    now: datetime,
) -> None:
    until = now - timedelta(seconds=policy.grace_seconds)
    with parts.locks.hold(f"judged-{product}"):
        known = parts.traces.sealed(release, shape, 1)
        if not known:
            first = answered_by(parts, product, release, Position(begun(parts, release), ""), until, policy.exchanges)
            if len(first) < policy.exchanges:
                return
            known = [_window(parts, 0, first, sitting, named)]
            parts.traces.seal(release, shape, known)
        last = known[-1]
        start = max(last.end, Position(until - _BACK, ""))
        found = answered_by(parts, product, release, start, until, _MOST * policy.exchanges)
        for begin in range(0, len(found) - policy.exchanges + 1, policy.exchanges):
            window = found[begin : begin + policy.exchanges]
            last = _window(parts, last.number + 1, window, sitting, named)
            parts.traces.seal(release, shape, [last])


def _window(parts: Parts, number: int, window: Sequence[Exchange], sitting: Sitting, named: KeptJudge) -> SealedWindow:
    """An empty answer is a poor one, and nobody is asked. Answers without a verdict are counted as such."""
    judge = sitting.judge
    fields = {each.trace_id: _fields(each, named.criteria) for each in window if each.answer.strip()}
    asked_about: Mapping[str, Fields] = {
        name: {field: all_of[field] for field in judge.file.fields()} for name, all_of in fields.items()
    }
    embedder = parts.embedder if isinstance(judge.file, RagasJudge) else None
    verdicts = judge_all(judge, sitting.endpoint, asked_about, embedder).values()
    failed = sum(each.word == FAILED for each in verdicts)
    good = sum(each.word != FAILED and each.score >= named.passes for each in verdicts)
    last = window[-1]
    return SealedWindow(
        number=number,
        begins=window[0].time,
        time=last.time,
        last=last.trace_id,
        answers=len(window),
        counts={METER: {"good": good, "poor": len(window) - good - failed, "failed": failed}},
    )


def _fields(exchange: Exchange, criteria: str) -> dict[str, str]:
    return {"question": asked(exchange), "response": said(exchange.answer), "criteria": criteria}
