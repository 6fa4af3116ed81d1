"""Each meter reads what happened; what lasts counts, what passes does not; what cannot be read is said so."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from data_contracts.digests import sha256_bytes
from data_contracts.errors import BadInput
from data_contracts.feedback import Exchange, Feedback
from pipelines.settings import Settings
from pipelines.stages.signals.costs import Prices
from pipelines.stages.signals.drift import DriftReport, FeatureDrift, measure
from pipelines.stages.signals.exchanges import exchanges
from pipelines.stages.signals.learned import learned
from pipelines.stages.signals.policy import SignalPolicy, load_policy
from pipelines.stages.signals.traces import Said, Traffic, Window, percentile, summarize, traffic
from pipelines.wiring import Line
from tests.support.line import SmallLine
from tests.unit.signals.test_drift import POLICY, PRODUCT, RELEASE, START, answers

PRICES = Prices(currency="EUR", gpu_minute=0, cpu_minute=0, prompt_1000=0.2, completion_1000=0.6, memory_gib_hour=0)
TRAINED = Window(answers=10, counts={"tool": {"get_invoice": 5, "none": 5}, "label": {"refund": 10}})


def window(counts: dict[str, dict[str, int]], **values: float) -> Window:
    return Window(answers=200, counts=counts, values=values)


def windows(reference: Window, *current: Window) -> Traffic:
    return Traffic(product="p", release=RELEASE, policy=POLICY.digest, reference=reference, current=current)


def meter(report: DriftReport, name: str) -> FeatureDrift:
    (found,) = [each for each in report.features if each.feature == name]
    return found


def rate(name: str, hits: int) -> Window:
    hit, miss = ("invalid", "valid") if name == "json_valid" else ("hit", "miss")
    return window({name: {hit: hits, miss: 200 - hits}})


ON_ANSWERS = ["json_valid", "bad_ratings", "corrections", "errors"]
ON_EXCHANGES = ["refusals", "toxicity"]


@pytest.mark.parametrize("name", ON_ANSWERS + ON_EXCHANGES)
def test_a_rate_that_jumps_for_good_drifts_and_one_that_jumps_once_does_not(name: str) -> None:
    calm, bad = rate(name, 6), rate(name, 60)
    for current, lasts in (((calm, bad, bad, bad), True), ((bad, calm, calm, calm), False)):
        found = windows(calm, *current)
        empty = windows(window({}))
        report = measure(found, POLICY) if name in ON_ANSWERS else measure(empty, POLICY, found)
        read = meter(report, name)
        assert (read.reference, [each.value for each in read.windows]) == (
            0.03,
            [0.3 if each is bad else 0.03 for each in current],
        )
        assert (read.sustained, report.drifted) == (lasts, lasts)
        assert [each.hits for each in read.windows] == [60 if each is bad else 6 for each in current]


def test_a_slow_rise_drifts_though_no_window_stands_out() -> None:
    slow = [rate("corrections", 6 + i // 2) for i in range(40)]
    read = meter(measure(windows(rate("corrections", 6), *slow[:24]), POLICY), "corrections")
    assert [each.score >= read.threshold for each in read.windows].count(True) < POLICY.sustained
    assert read.rise is not None
    assert meter(measure(windows(rate("corrections", 6), *slow), POLICY), "corrections").sustained
    assert not meter(measure(windows(*[rate("corrections", 6)] * 41), POLICY), "corrections").sustained


def test_a_rate_says_what_it_counts() -> None:
    read = meter(measure(windows(rate("json_valid", 6), rate("json_valid", 30)), POLICY), "json_valid")
    assert read.reading == "15 % invalid, was 3 %"


def test_refusals_that_cease_are_seen_too() -> None:
    calm, none = rate("refusals", 80), rate("refusals", 10)
    report = measure(windows(window({})), POLICY, windows(calm, none, none, none))
    assert report.sustained == ["compliance"]


def test_slow_answers_are_held_against_the_slowest_of_the_reference() -> None:
    def timed(ms: float) -> Window:
        return summarize(
            [each.model_copy(update={"latency_ms": ms + i}) for i, each in enumerate(answers(200, 1))], POLICY
        )

    read = meter(measure(windows(timed(300), timed(300), timed(450), timed(450), timed(450)), POLICY), "latency_ms")
    assert read.sustained
    assert read.reference == pytest.approx(490, rel=0.1)
    assert [each.value for each in read.windows] == pytest.approx([490, 640, 640, 640], rel=0.1)
    assert [(each.hits or 0) > 30 for each in read.windows] == [False, True, True, True]
    assert percentile({"10": 95, "20": 5}, 0.95) == round(1.1**10, 1)


def test_what_was_never_learned_adds_up_over_windows() -> None:
    tools = {"none": 100, "get_invoice": 100}
    old, new = (window({"label": label, "tool": tools}) for label in ({"refund": 5}, {"outage": 1}))
    once = measure(windows(old, old, new, old, old, old), POLICY, learned=TRAINED)
    twice = measure(windows(old, new, old, new, old), POLICY, learned=TRAINED)
    assert (once.sustained, twice.sustained) == ([], ["new_label"])
    assert "new_label (1 never seen in training)" in measure(windows(old, new, new), POLICY, learned=TRAINED).reason
    assert meter(twice, "new_tool").windows[-1].value == 0
    assert "cannot be read" in meter(measure(windows(old, new), POLICY), "new_label").silent
    unlabelled = Window(answers=1, counts={"tool": {"none": 1}, "label": {}})
    assert "name no label" in meter(measure(windows(old, new), POLICY, learned=unlabelled), "new_label").silent


def test_old_labels_and_dearer_answers_are_told() -> None:
    cheap = window({}, prompt_tokens=18_000, completion_tokens=4_000, label_age_days=3)
    dear = window({}, prompt_tokens=36_000, completion_tokens=8_000, label_age_days=200)
    report = measure(windows(cheap, dear, dear, dear), POLICY, prices=PRICES)
    cost = meter(report, "cost_1000")
    assert (cost.reference, [each.value for each in cost.windows]) == (30, [60, 60, 60])
    assert set(report.sustained) == {"cost_1000", "label_age_days"}
    assert meter(measure(windows(cheap, dear), POLICY), "cost_1000").silent == "no window says anything of it"


def test_a_product_that_keeps_no_words_has_silent_meters_and_no_failure() -> None:
    report = measure(windows(rate("errors", 1), rate("errors", 1)), POLICY)
    silent = {each.feature for each in report.features if "kept in words" in each.silent}
    assert silent == {name for name, rule in POLICY.meters.items() if rule.of == "exchanges"}


def test_errors_ratings_and_labels_are_of_their_window_only() -> None:
    def said(name: str, minute: int, **what: object) -> Feedback:
        values = {"feedback_id": name, "trace_id": name, "time": START + timedelta(minutes=minute), "tenant": "demo"}
        rest = {"product": "p", "release": RELEASE, "by": "user", "author": "a"}
        return Feedback.model_validate(values | rest | what)

    happened = Said(
        failed=(START + timedelta(minutes=2), START + timedelta(minutes=60)),
        feedback=(
            said("a", 3, rating="bad"),
            said("b", 4, rating="good"),
            said("c", 5, correction="no"),
            said("d", 6, by="reviewer", label="outage"),
            said("e", 70, rating="bad"),
        ),
    )
    found = summarize(answers(50, 0), POLICY, happened.between(START, START + timedelta(minutes=50)))
    assert found.counts["errors"] == {"hit": 1, "miss": 50}
    assert found.counts["bad_ratings"] == {"hit": 1, "miss": 49}
    assert found.counts["corrections"] == {"hit": 1, "miss": 49}
    assert found.counts["label"] == {"outage": 1}


class Topics:
    """Made-up meaning: a text's first word."""

    identity = "topics"

    def embed(self, texts: list[str]) -> np.ndarray:
        return np.array(
            [[float(text.startswith("refund")), float(text.startswith("bill"))] for text in texts], np.float32
        )


class English:
    identity = "english"
    languages = frozenset({"en"})

    def language(self, text: str) -> str | None:
        return "en"


class Rude:
    identity, known_biases = "rude", ""

    def scores(self, texts: list[str]) -> list[float]:
        return [float("idiot" in text) for text in texts]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    line = Line(Settings(home=tmp_path, trust_root=tmp_path / "trust"))
    line.embedder, line.language, line.toxicity = Topics(), English(), Rude()  # type: ignore[assignment]
    body = {"environment": "production", "release": RELEASE}
    line.log.append("promotion.recorded", "billing-assistant", body, actor="test")
    return line


def keep(line: Line, first: int, count: int, question: str, answer: str) -> None:
    for index in range(first, first + count):
        exchange = Exchange.model_validate(
            {
                "trace_id": f"x{index:05}",
                "time": line.log.records()[0].time + timedelta(microseconds=index),
                "tenant": "demo",
                "product": "billing-assistant",
                "release": RELEASE,
                "messages": [{"role": "user", "content": f"{question} {index}"}],
                "answer": answer,
                "policy": RELEASE,
            }
        )
        line.feedback.add_exchange(exchange)
    assert line.feedback.flush()


def test_exchanges_are_read_once_and_kept_as_numbers(line: Line) -> None:
    small = SignalPolicy.model_validate(POLICY.payload() | {"exchanges": 20, "grace_seconds": 0})
    assert exchanges(line, PRODUCT, small).reference is None
    keep(line, 0, 50, "bill", '{"tool": "none", "reply": "I am sorry, I cannot help with that."}')
    first = exchanges(line, PRODUCT, small)
    keep(line, 50, 70, "refund", "you idiot")
    found = exchanges(line, PRODUCT, small)

    assert first.reference == found.reference
    assert first.reference is not None
    assert first.reference.counts["refusals"] == {"hit": 20, "miss": 0}
    assert first.reference.counts["language"] == {"en": 20}
    assert [each.number for each in found.current] == [1, 2, 3, 4, 5]
    assert found.current[0].values["question_meaning"] > 0.05
    assert found.current[-1].values["question_meaning"] == 0.001
    assert found.current[-1].counts["toxicity"] == {"hit": 20, "miss": 0}
    report = measure(windows(window({})), small, found)
    assert {"question_meaning", "toxicity", "compliance"} <= set(report.sustained)
    assert "idiot" not in found.model_dump_json()

    line.feedback.delete("billing-assistant", line.log.records()[0].time + timedelta(microseconds=20))
    keep(line, 120, 20, "refund", "you idiot")
    assert exchanges(line, PRODUCT, small).current[-1].values == {}, "the reference's words are gone"


def test_failed_requests_and_feedback_reach_the_windows(line: Line) -> None:
    small = SignalPolicy.model_validate(POLICY.payload() | {"window": 50})
    for trace in answers(100, 0):
        line.traces.add(trace)
    for minute, changes in (
        (70, {"status": 502}),
        (80, {"release": None, "failed": (RELEASE,)}),
        (200, {"status": 502}),
    ):
        failed = answers(1, 0)[0].model_copy(
            update={"trace_id": f"f{minute}", "time": START + timedelta(minutes=minute)}
        )
        line.traces.add(failed.model_copy(update=changes))
    assert line.traces.flush()
    rating = {"feedback_id": "1", "trace_id": "0-60", "time": START + timedelta(minutes=90), "tenant": "demo"}
    rest = {"product": "billing-assistant", "release": RELEASE, "by": "user", "author": "a", "rating": "bad"}
    line.feedback.add(Feedback.model_validate(rating | rest))
    assert line.feedback.flush()
    found = traffic(line, PRODUCT, small)
    assert found.reference is not None
    assert found.reference.counts["errors"] == {"hit": 0, "miss": 50}
    (newest,) = found.current
    assert newest.counts["errors"] == {"hit": 2, "miss": 50}
    assert newest.counts["bad_ratings"] == {"hit": 1, "miss": 49}
    assert newest.ends == START + timedelta(minutes=99)


def test_what_a_release_learned_from_is_counted_once(tmp_path: Path) -> None:
    small = SmallLine(tmp_path)
    release = small.live()
    found = learned(small.parts, release.digest)
    assert found is not None
    assert found.counts == {"tool": {"get_invoice": 12}, "label": {}}
    assert learned(small.parts, release.digest) == found
    assert learned(small.parts, sha256_bytes(b"nothing")) is None


def test_a_policy_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    text = (Path(__file__).parents[3] / "pipelines/stages/signals/policy.yaml").read_text()
    for old, new, why in (
        ("method: rate, hit", "method: guess, hit", "method"),
        ("tool: {of: answers, method: shares", "tool: {of: answers, rises: 3, method: shares", "rises goes with"),
        ("hit: invalid, miss: valid, threshold: 0.0005", "hit: invalid, miss: valid, threshold: 3", "p-value"),
        ("history: 60", "history: 2", "windows cannot be more"),
    ):
        assert old in text
        file.write_text(text.replace(old, new))
        with pytest.raises(BadInput, match=why):
            load_policy(file)
