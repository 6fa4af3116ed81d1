"""Rows from a teacher model: asked by stratum, held to validators, refused when they repeat a seed or one another.

Whatever becomes of a request is counted: requests = rows + faults. Which rows come out depends on plan, seeds and
answers alone, never on the order in which the answers came.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from data_contracts.digests import Digest, hex_of, sha256_json
from data_contracts.errors import BadInput
from data_contracts.ledger import ConsentBasis
from pipelines.stages.data.item import Row
from pipelines.stages.data.near import near_pairs
from pipelines.stages.data.plain import Report
from pipelines.stages.data.protocols import LanguageDetector, PiiAnalyzer
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from pipelines.stages.data.synthetic.plan import Plan, Seed, check_terms, load_seeds
from pipelines.stages.data.synthetic.requests import Request, requests
from pipelines.stages.data.synthetic.validate import Completion, Draft, Fault, fault, read

_ALIKE = 0.6
"""Jaccard similarity of word trigrams, numbers apart, from which a question repeats another one."""
_NUMBER = re.compile(r"\d+")
_CONSENT: ConsentBasis = "synthetic"


class Endpoint(Protocol):
    """A server that answers chat completions."""

    def ask(
        self, bodies: Mapping[Digest, dict[str, Any]], answered: Callable[[Digest, Completion], None]
    ) -> dict[Digest, str]:
        """Ask for each completion and hand it on as it comes; returns why the others failed. Raises `Unavailable` when
        there is no sense in going on."""
        ...


@dataclass
class Synthesis:
    rows: list[Row]
    report: Report
    facts: dict[str, Any] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """The report of a plain file, with the yield by reason and by stratum. It quotes no row."""
        return self.report.payload() | self.facts


def synthesize(
    plan: Plan,
    model: str,
    endpoint: Endpoint,
    detector: LanguageDetector,
    answers: AnswerFile,
    pii: PiiAnalyzer | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Synthesis:
    """Ask what was not answered yet, then check. ``model`` is the name under which the endpoint serves the teacher;
    ``progress`` gets the number of requests answered so far, and of all.

    Raises `Refused` for a teacher whose terms do not allow it, `BadInput` for seeds or languages of no use."""
    check_terms(plan.teacher)
    if unknown := sorted(set(plan.languages) - detector.languages):
        raise BadInput(f"plan {plan.name}: no detector knows the language {', '.join(unknown)}; use ISO 639-1 codes")
    seeds = load_seeds(plan)
    asked = list(requests(plan, seeds, model))
    pending = {request.digest: request.body for request in asked if request.digest not in answers.known}

    def answered(request: Digest, completion: Completion) -> None:
        answers.add(request, completion)
        missing.discard(request)
        progress(len(asked) - len(missing), len(asked))

    missing = set(pending)
    failed = endpoint.ask(pending, answered)

    judged = [_judged(plan, request, answers.known, failed, detector) for request in asked]
    judged = _without_repeats(_impersonal(judged, pii), seeds, asked)
    return _summed_up(plan, seeds, asked, judged)


Judged = list[Draft | Fault]


def _judged(
    plan: Plan,
    request: Request,
    known: Mapping[Digest, Completion],
    failed: Mapping[Digest, str],
    detector: LanguageDetector,
) -> Draft | Fault:
    if request.digest not in known:
        return Fault("no-answer", failed[request.digest])
    draft = read(plan, request, known[request.digest])
    return draft if isinstance(draft, Fault) else fault(plan, request, draft, detector) or draft


def _impersonal(judged: Judged, pii: PiiAnalyzer | None) -> Judged:
    """Faults in the place of drafts that hold personal data, if there is an analyzer to find it."""
    drafts = [index for index, each in enumerate(judged) if isinstance(each, Draft)]
    found = pii.find([f"{judged[index][0]}\n\n{judged[index][1]}" for index in drafts]) if pii and drafts else []
    kinds = {
        index: sorted({each.kind for each in each_found}) for index, each_found in zip(drafts, found, strict=False)
    }
    return [
        Fault("personal-data", f"holds {', '.join(kinds[index])}") if kinds.get(index) else each
        for index, each in enumerate(judged)
    ]


def _without_repeats(judged: Judged, seeds: Mapping[str, Sequence[Seed]], asked: Sequence[Request]) -> Judged:
    """Faults in the place of drafts whose question is like an earlier one: seeds come first, then the requests in their
    order."""
    pool = [seed for each in seeds.values() for seed in each]
    drafts = [(request, each) for request, each in zip(asked, judged, strict=True) if isinstance(each, Draft)]
    ids = [seed.id for seed in pool] + [row_id(request) for request, _ in drafts]
    questions = [seed.question for seed in pool] + [draft.question for _, draft in drafts]
    copies: dict[int, int] = {}
    for left, right in near_pairs([_NUMBER.sub("0", each) for each in questions], _ALIKE):
        if left not in copies and right not in copies and right >= len(pool):
            copies[right] = left
    faults = {
        ids[right]: Fault("near-duplicate-of-seed", "says nearly what a seed says", ids[left])
        if left < len(pool)
        else Fault("near-duplicate", "says nearly what another row says", ids[left])
        for right, left in copies.items()
    }
    return [
        faults.get(row_id(request), each) if isinstance(each, Draft) else each
        for request, each in zip(asked, judged, strict=True)
    ]


def _summed_up(plan: Plan, seeds: Mapping[str, Sequence[Seed]], asked: Sequence[Request], judged: Judged) -> Synthesis:
    report = Report(rows_in=len(asked))
    rows: list[Row] = []
    strata: dict[str, dict[str, int]] = {}
    for index, (request, each) in enumerate(zip(asked, judged, strict=True)):
        counts = strata.setdefault(request.stratum, {"asked": 0, "rows": 0})
        counts["asked"] += 1
        if isinstance(each, Fault):
            report.drop(index, f"{each.code}: {each.reason}", each.match)
        else:
            counts["rows"] += 1
            rows.append(_row(plan, request, each))
    facts = {
        "plan": plan.digest,
        "teacher": plan.teacher.payload(),
        "seeds": sha256_json([seed.payload() for pool in seeds.values() for seed in pool]),
        "yields": {"row": len(rows)}
        | dict(Counter(each.code for each in judged if isinstance(each, Fault)).most_common()),
        "strata": strata,
        "depths": dict(sorted(Counter(str(row["synthetic_depth"]) for row in rows).items())),
    }
    return Synthesis(rows, report, facts)


def row_id(request: Request) -> str:
    return f"synthetic-{hex_of(request.digest)[:16]}"


def _row(plan: Plan, request: Request, draft: Draft) -> Row:
    """A conversation with all that its contract wants to know of where it came from."""
    return {
        "id": row_id(request),
        "messages": [{"role": "user", "content": draft.question}, {"role": "assistant", "content": draft.answer}],
        "tools": [tool.payload() for tool in plan.tools],
        "synthetic": True,
        "synthetic_depth": 1 + max(seed.synthetic_depth for seed in request.seeds),
        "teacher": plan.teacher.model,
        "plan": plan.digest,
        "intent": request.intent.name,
        "length": request.length.name,
        "language": request.language,
        "seeds": [seed.id for seed in request.seeds],
        "licence": plan.licence,
        "consent": _CONSENT,
    }
