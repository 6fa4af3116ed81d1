"""A made-up month of the demo product, in its own wording: answers and what people said of them go through the real
spools into the real stores, window by window, and at each window the look is taken that the hourly schedule takes.

No model answers: answers are those of the generated rows. Time is the month's own clock, which begins now.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_contracts.digests import sha256_bytes
from data_contracts.feedback import Exchange, Feedback
from data_contracts.ledger import LedgerEntry
from data_contracts.manifests import DatasetManifest
from data_contracts.records import NO_TOOL, Message
from data_contracts.traces import Trace
from evals.answers import words
from evals.suite import tool_catalogue
from pipelines.recipes.product import ROOT
from pipelines.stages.data.generate import generated, phrases
from pipelines.stages.data.rows import Outcome, Outlet, load, named, step
from pipelines.stages.signals.drift import DriftReport, is_recorded, measure, record
from pipelines.stages.signals.exchanges import exchanges
from pipelines.stages.signals.freeze import freeze_file, frozen
from pipelines.stages.signals.learned import learned
from pipelines.stages.signals.outlook import outlook
from pipelines.stages.signals.policy import load_policy
from pipelines.stages.signals.retrain_decision import (
    RetrainDecision,
    decide,
    decide_and_record,
    is_released,
    recorded_effort,
)
from pipelines.stages.signals.traces import traffic
from resources.audit_log import FileAuditLog
from resources.embedding import SentenceEmbedder
from resources.feedback import open_feedback
from resources.language import LangidDetector
from resources.toxicity import ProfanityCheck
from resources.traces import open_traces
from tests.support.line import SmallLine

POLICY = load_policy()
PRODUCT = "billing-assistant"
WINDOW = timedelta(hours=12)
"""In which ``POLICY.window`` answers are given."""
LABELLED = 5
"""Answers of a window whose question a reviewer names."""
NEW_LABEL = "outage"


class World(NamedTuple):
    """What is true of a window. Shares: of questions that the demo never learned; of answers that users call bad, and
    that they correct; of what reviewers label that has a new name."""

    topic: float = 0.0
    bad: float = 0.02
    corrected: float = 0.01
    new_label: float = 0.0


Change = Callable[[int], World]
"""The world of the n-th window after the change, n from 1."""


class Asked(NamedTuple):
    question: str
    answer: str

    @property
    def tool(self) -> str | None:
        called: str = json.loads(self.answer)["tool"]
        return None if called == NO_TOOL else called

    @property
    def label(self) -> str:
        return self.tool or "words"


class Look(NamedTuple):
    """A decision that was taken when so many windows were whole, the reference not counted."""

    window: int
    time: datetime
    decision: RetrainDecision


class Remembering:
    """The real embedder, which reads each text once in all months."""

    def __init__(self, real: SentenceEmbedder) -> None:
        self.identity = real.identity
        self._real = real
        self._known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if fresh := sorted(set(texts) - self._known.keys()):
            self._known.update(zip(fresh, self._real.embed(fresh), strict=True))
        return np.stack([self._known[text] for text in texts])


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Demo:
    """The line as the demo's first release leaves it, to be copied for each month. ``questions``: how many of the
    demo's own there are; texts are read for their meaning once. The release goes live at ``began``."""

    def __init__(self, folder: Path, questions: int = 1000, began: datetime | None = None) -> None:
        self.line = SmallLine(folder, PRODUCT)
        self.began = began or datetime.now(UTC)
        home = self.line.parts.home
        self.line.parts.__dict__["log"] = FileAuditLog(home / "chain", home / "keys" / "log_ed25519", Clock(self.began))
        self.known = list(_learned_questions())[:questions]
        self.new = list(_new_questions(96))
        self.line.splits = train_on(self.line, self.known)
        self.release = self.line.live()
        self.readers = {
            "embedder": Remembering(SentenceEmbedder()),
            "language": LangidDetector(),
            "toxicity": ProfanityCheck(),
        }

    def month(self, folder: Path, seed: int, traces_url: str = "") -> "Month":
        """``traces_url``: of a PostgreSQL database of this month's own; SQLite without it."""
        return Month(self, self.line.copied(folder), seed, traces_url)


class Month:
    def __init__(self, demo: Demo, line: SmallLine, seed: int, traces_url: str) -> None:
        self.demo, self.line, self.parts, self.product = demo, line, line.parts, line.product
        self.seed, self.dice = seed, random.Random(seed)
        self.clock = Clock(demo.began)
        home = self.parts.home
        self.parts.__dict__.update(
            demo.readers,
            log=FileAuditLog(home / "chain", home / "keys" / "log_ed25519", self.clock),
            traces=open_traces(traces_url, home / "traces.sqlite", home / "spool"),
            feedback=open_feedback(traces_url, home / "feedback.sqlite", home / "feedback-spool"),
        )

    def freeze(self, first: int, last: int) -> None:
        """By the calendar, from the begin of this window to the end of that one."""
        begins, ends = (self.demo.began + n * WINDOW for n in (first, last + 1))
        window = {"owner": "ada@acme.example", "reason": "audit", "begins": str(begins), "ends": str(ends)}
        freeze_file(self.parts.home).write_text(json.dumps({"windows": [window]}))

    def play(self, change: Change | None, windows: int, after: int) -> Iterator[Look]:
        """The reference and so many ``windows``, of which those after the first ``after`` are of the changed world. A
        look when each is whole, and each hour while a retraining is held."""
        for number in range(windows + 1):
            begins = self.demo.began + number * WINDOW
            changed = change is not None and number > after
            self._write(number, begins, change(number - after) if change and changed else World())
            self.clock.now = begins + WINDOW + timedelta(seconds=POLICY.grace_seconds)
            decision = self._look()
            if decision:
                yield Look(number, self.clock.now, decision)
            while (
                decision and decision.decision == "hold" and self.clock.now < begins + 2 * WINDOW - timedelta(hours=1)
            ):
                self.clock.now += timedelta(hours=1)
                if again := self._look():
                    decision = again
                    yield Look(number, self.clock.now, decision)
        self.parts.traces.close()
        self.parts.feedback.close()

    def _look(self) -> RetrainDecision | None:
        """What `drift_check` and the assets of the signals do, without Dagster; ``None`` where it skips."""
        parts, product, now = self.parts, self.product, self.clock.now
        seen = traffic(parts, product, POLICY, now)
        if is_recorded(parts, seen) and not is_released(parts, product.name, POLICY, now):
            return None
        kept = exchanges(parts, product, POLICY, now)
        report = measure(seen, POLICY, kept, learned(parts, self.demo.release.digest))
        record(parts, report)
        promised = outlook(parts, product, POLICY, now) if report.drifted else None
        past = recorded_effort(parts.log.records(), product.name)
        return decide_and_record(parts, report, POLICY, past, promised, now)

    def _write(self, number: int, begins: datetime, world: World) -> None:
        times = sorted(begins + self.dice.random() * WINDOW for _ in range(POLICY.window))
        labelled = set(self.dice.sample(range(POLICY.window), LABELLED))
        every = POLICY.window // POLICY.exchanges
        for index, time in enumerate(times):
            name = f"m{self.seed}-{number:03}-{index:03}"
            asked = self.dice.choice(self.demo.new if self.dice.random() < world.topic else self.demo.known)
            self.parts.traces.add(self._trace(name, time, asked))
            if self.dice.random() < 0.005:
                failed = self._trace(f"{name}-failed", time, asked)
                self.parts.traces.add(failed.model_copy(update={"status": 502, "json_valid": None, "tool": None}))
            if index % every == 0:
                self.parts.feedback.add_exchange(self._exchange(name, time, asked))
            for said in self._said(name, time, asked, world, index in labelled):
                self.parts.feedback.add(said)
        if not (self.parts.traces.flush() and self.parts.feedback.flush()):
            raise RuntimeError(f"window {number} did not reach its store")

    def _trace(self, name: str, time: datetime, asked: Asked) -> Trace:
        release = self.demo.release
        return Trace(
            **self._of(name, time),
            route="champion",
            base=release.base,
            adapter=sha256_bytes(b"adapter"),
            template=release.template,
            status=200,
            prompt_chars=len(asked.question),
            prompt_tokens=90 + len(asked.question) // 4,
            completion_tokens=1 + len(asked.answer) // 4,
            latency_ms=self.dice.lognormvariate(6.5, 0.4),
            json_valid=self.dice.random() < 0.97,
            tool=asked.tool,
        )

    def _exchange(self, name: str, time: datetime, asked: Asked) -> Exchange:
        message = Message(role="user", content=asked.question)
        return Exchange(
            **self._of(name, time), messages=(message,), answer=asked.answer, policy=sha256_bytes(b"data policy")
        )

    def _said(self, name: str, time: datetime, asked: Asked, world: World, labelled: bool) -> Iterator[Feedback]:
        """Some minutes after the answer."""
        common = self._of(name, time + timedelta(minutes=30 * self.dice.random())) | {"author": "somebody"}
        if self.dice.random() < world.bad:
            yield Feedback(**common, feedback_id=f"{name}-bad", by="user", rating="bad")
        if self.dice.random() < world.corrected:
            yield Feedback(**common, feedback_id=f"{name}-better", by="user", correction=asked.answer)
        if labelled:
            label = NEW_LABEL if self.dice.random() < world.new_label else asked.label
            yield Feedback(**common, feedback_id=f"{name}-label", by="reviewer", label=label)

    def _of(self, name: str, time: datetime) -> dict[str, object]:
        whose = {"tenant": self.product.tenant, "product": self.product.name, "release": self.demo.release.digest}
        return {"trace_id": name, "time": time} | whose


def replayed(month: Month) -> int:
    """Decide again every decision of the log from its report and from what was chained before it; how many there are.
    Raises `AssertionError` for one that the log does not justify."""
    parts, log = month.parts, month.parts.log.records()
    decided = [each for each in log if each.event == "retrain.decided"]
    for each in decided:
        kept = parts.store.get_manifest(str(each.body["record"]), RetrainDecision)
        report = parts.store.get_manifest(kept.drift, DriftReport)
        before = log[: each.sequence]
        freeze = frozen(freeze_file(parts.home), each.product, each.time)
        past = recorded_effort(before, each.product)
        assert decide(report, POLICY, before, past, each.time, freeze, kept.outlook) == kept, each.sequence
        assert (each.body["decision"], each.body["held_by"]) == (kept.decision, kept.held_by), each.sequence
    return len(decided)


def _learned_questions() -> Iterator[Asked]:
    """The demo's own rows, exchange by exchange."""
    for line in generated("billing-conversations").splitlines():
        row = json.loads(line)
        if row["template"].startswith("family"):
            turns = [message["content"] for message in row["messages"]]
            yield from map(Asked, turns[::2], turns[1::2])


def _new_questions(count: int) -> Iterator[Asked]:
    """Of tools that no training row has, which are not on offer: the demo says so."""
    chance, said = random.Random(1), phrases()
    items = [json.loads(line) for line in (ROOT / "evals/goldens/billing-unseen-tools.jsonl").read_text().splitlines()]
    for number in range(count):
        question = items[number % len(items)]["text"]
        asked = f"{chance.choice(said['openers'])}{question}{chance.choice(said['closers'])}"
        yield Asked(asked, words(chance.choice(said["replies"]["not_offered"])))


def train_on(line: SmallLine, known: Sequence[Asked]) -> DatasetManifest:
    """Splits whose training rows are these questions and answers, each with its label."""
    parts, tools = line.parts, tool_catalogue()
    people = list(load(parts, line.raw))
    rows = [
        {
            "kind": "sft",
            "text": each.question,
            "label": each.label,
            "split": "train",
            "example": {
                "messages": [
                    {"role": "user", "content": each.question},
                    {"role": "assistant", "content": each.answer},
                ],
                "tools": [tools[each.tool or "get_invoice"].payload()],
            },
        }
        for each in known
    ]
    items = named(parts, [(people[n % len(people)].subject, people[0].origin, row) for n, row in enumerate(rows)])
    parts.ledger.record(LedgerEntry(row=each.name, subject=each.subject, origin=each.origin) for each in items)

    def keep(out: Outlet) -> Outcome:
        for item in items:
            out.keep(item)
        return Outcome()

    return step(parts, line.product, "splits", (), {"questions": len(known)}, [line.raw], keep)[0]
