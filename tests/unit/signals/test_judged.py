"""Answers that are kept in words, graded by a scripted judge over HTTP: it counts while it is calibrated, is shown
while it is not, and keeps no other meter waiting."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_contracts.errors import BadInput
from evals.calibration import calibrate, keep, read_set
from evals.judge import Judge, load_judge
from pipelines.recipes.product import Keep, KeptJudge, Product
from pipelines.settings import Settings
from pipelines.stages.signals.drift import FeatureDrift, measure
from pipelines.stages.signals.judged import Judged, judged
from pipelines.stages.signals.policy import SignalPolicy
from pipelines.stages.signals.traces import Traffic, Window
from pipelines.wiring import Line
from tests.support.feedback import make_exchange
from tests.support.judging import tagged
from tests.support.teacher import Body, Reply, TeacherServer, teaching
from tests.unit.signals.test_drift import POLICY, PRODUCT, RELEASE

SMALL = SignalPolicy.model_validate(POLICY.payload() | {"exchanges": 40, "grace_seconds": 0})
ON_ANSWERS = Traffic(
    product=PRODUCT.name, release=RELEASE, policy=SMALL.digest, reference=Window(answers=1, counts={}), current=()
)
KIND, RUDE = "You are billed on the 1st.", "Look it up yourself."


def verdict(body: Body, before: int) -> Reply:
    return Reply(f"I read it.\nVerdict: {1 if tagged(body, 'reply') == RUDE else 5}")


class Place:
    """A live release whose product names the judge behind ``server``; answers are kept minute by minute."""

    def __init__(self, folder: Path, server: TeacherServer) -> None:
        self.line = Line(Settings(home=folder / "home", trust_root=folder / "trust"))
        self.server, self.kept = server, 0
        self.product = self.named(server.url)
        body = {"environment": "production", "release": RELEASE}
        self.line.log.append("promotion.recorded", PRODUCT.name, body, actor="test")
        self.begun = datetime.now(UTC)

    def named(self, url: str, **changes: Any) -> Product:
        values = {"url": url, "model": "judge", "criteria": "It is polite and says when."}
        judge = KeptJudge.model_validate(values | changes)
        return PRODUCT.model_copy(update={"keep": Keep(share=0.5, judge=judge)})

    def calibrate(self) -> None:
        """On sixty replies that people graded as it will."""
        judge = Judge(load_judge("reply-quality"), "judge")
        rows = [
            {"question": f"when? {n}", "criteria": "polite", "response": reply, "score": score}
            for n in range(30)
            for reply, score in ((KIND, 5), (RUDE, 1))
        ]
        labelled = read_set(enumerate(rows), judge.file.set, "replies")
        endpoint = self.line.judge_of(self.named(self.server.url).keep.judge).endpoint  # type: ignore[union-attr, arg-type]
        keep(self.line.store, calibrate(judge, endpoint, labelled))
        self.server.bodies.clear()

    def keep(self, *answers: str) -> None:
        for answer in answers:
            time = self.begun + timedelta(minutes=self.kept)
            values = {"time": time, "product": PRODUCT.name, "release": RELEASE, "answer": answer}
            self.line.feedback.add_exchange(make_exchange(f"x{self.kept:05}", **values))
            self.kept += 1
        assert self.line.feedback.flush()

    def window(self, poor: int) -> list[str]:
        return [RUDE] * poor + [KIND] * (40 - poor)

    def look(self, product: Product | None = None, later: timedelta = timedelta(0)) -> Judged:
        now = self.begun + timedelta(minutes=self.kept) + later
        return judged(self.line, product or self.product, SMALL, now)


def read(found: Judged) -> FeatureDrift:
    (meter,) = [each for each in measure(ON_ANSWERS, SMALL, judged=found).features if each.feature == "judged_quality"]
    return meter


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[..., Place]]:
    """Makes the place, with a judge that answers by a function."""
    with teaching(verdict) as server:

        def made(reply: Callable[[Body, int], Reply] = verdict) -> Place:
            server.reply = reply
            return Place(tmp_path, server)

        yield made


def test_a_calibrated_judge_sees_quality_fall(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.calibrate()
    place.keep(*place.window(2), *place.window(2))
    assert not read(place.look()).sustained
    assert len(place.server.bodies) == 4, "of each window, what differs"

    place.keep(*place.window(30), *place.window(30), *place.window(30), *[KIND] * 39)
    found = place.look()
    meter = read(found)
    assert (found.untrusted, meter.sustained) == ("", True)
    assert [each.value for each in meter.windows] == [0.05, 0.75, 0.75, 0.75]
    assert meter.reading.startswith("75 % poor, was 5 %")
    assert "judged_quality" in measure(ON_ANSWERS, SMALL, judged=found).reason
    assert len(place.server.bodies) == 10, "what was judged is not asked again, nor half a window"
    assert RUDE not in found.model_dump_json()
    shown = place.server.bodies[0]
    assert (tagged(shown, "message"), tagged(shown, "criteria")) == ("when am I billed?", "It is polite and says when.")


def test_a_judge_that_is_not_calibrated_is_shown_and_decides_nothing(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.keep(*place.window(2), *place.window(30) * 3)
    found = place.look()
    meter = read(found)
    assert [each.value for each in meter.windows] == [0.75] * 3
    assert not meter.sustained
    assert "untrusted: judge reply-quality (judge) is not calibrated" in meter.reading
    assert not measure(ON_ANSWERS, SMALL, judged=found).drifted

    place.calibrate()
    assert read(place.look()).sustained, "the same windows count as soon as it is"
    assert place.server.bodies == []


def test_without_a_judge_there_is_no_such_meter(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.keep(*place.window(0))
    for product in (PRODUCT, PRODUCT.model_copy(update={"keep": Keep(share=1)})):
        report = measure(ON_ANSWERS, SMALL, judged=place.look(product))
        assert "judged_quality" not in [each.feature for each in report.features]
        assert "judged" not in report.payload()
    assert place.server.bodies == []


def test_while_the_judge_is_away_nothing_counts_and_nothing_is_lost(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.calibrate()
    place.keep(*place.window(2), *place.window(30) * 3)
    assert read(place.look()).sustained
    place.keep(*place.window(30))
    place.server.reply = lambda body, before: Reply(status=404)
    meter = read(place.look())
    assert (len(meter.windows), meter.sustained) == (3, False)
    assert "cannot be asked" in meter.reading

    place.server.reply = verdict
    assert read(place.look()).sustained
    assert len(read(place.look()).windows) == 4


def test_answers_without_a_verdict_are_neither_good_nor_poor(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.calibrate()
    place.keep(*place.window(2), *place.window(30) * 3)
    place.server.reply = lambda body, before: Reply("Well.") if tagged(body, "reply") == RUDE else verdict(body, before)
    found = place.look()
    assert found.traffic is not None
    assert found.traffic.current[-1].counts["judged_quality"] == {"good": 10, "poor": 0, "failed": 30}
    assert "no verdict on 90 of the 120 answers" in found.untrusted
    assert not read(found).sustained


def test_an_empty_answer_is_poor_and_nobody_is_asked(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.keep(*[" "] * 40)
    found = place.look()
    assert found.traffic is not None
    assert found.traffic.reference is not None
    assert found.traffic.reference.counts["judged_quality"] == {"good": 0, "poor": 40, "failed": 0}
    assert place.server.bodies == []


def test_a_judge_that_is_named_late_judges_the_first_window_and_the_last_week(scripted: Callable[..., Place]) -> None:
    place = scripted()
    place.keep(*place.window(2), *place.window(30) * 3)
    found = place.look(later=timedelta(days=7) - timedelta(minutes=40))
    assert found.traffic is not None
    assert found.traffic.reference is not None
    assert [each.begins for each in found.traffic.current] == [place.begun + timedelta(minutes=120)]
    assert found.traffic.reference.begins == place.begun


def test_a_judge_file_or_key_that_does_not_fit_is_said_and_stops_nothing(
    scripted: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    place = scripted()
    place.keep(*place.window(0))
    url = place.server.url
    for changes, says in (
        ({"task": "faithfulness"}, "asks about context"),
        ({"task": "no-such-judge"}, "no file"),
        ({"key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY (keep.judge.key_env)"),
    ):
        found = place.look(place.named(url, **changes))
        assert says in found.untrusted
        assert says in read(found).reading
    assert place.server.bodies == []


def test_a_product_file_that_cannot_mean_what_it_says_is_refused() -> None:
    judge = {"url": "http://127.0.0.1:8000/v1", "model": "judge", "criteria": "polite"}
    with pytest.raises(ValidationError, match="name a share above 0"):
        Keep.model_validate({"judge": judge})
    with pytest.raises(ValidationError, match="url"):
        Keep.model_validate({"share": 1, "judge": judge | {"url": "127.0.0.1:8000"}})
    with pytest.raises(BadInput, match="no file"):
        load_judge("no-such-judge")
