"""A canary with the traffic: who is asked, who counts, and what is decided from it."""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_contracts.digests import sha256_bytes
from data_contracts.errors import Refused
from data_contracts.manifests import ReleaseManifest
from data_contracts.traces import Trace
from pipelines.recipes.product import Canary, Product, Rollout, Serving
from pipelines.stages.release import rollout
from pipelines.stages.release.promotion import promote
from pipelines.stages.release.rollout import First, Judgement, first_answers, judge
from pipelines.stages.release.verify import verify
from pipelines.stages.serve.cohort import cohort, is_challenged
from pipelines.stages.serve.routes import read_routes, share_traffic
from tests.support.line import SmallLine

OURS, THEIRS = sha256_bytes(b"challenger"), sha256_bytes(b"champion")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULE = Rollout(answers=60, most=800)
GOOD = {"answered": 1.0, "json_valid": 0.97, "in_time": 0.95, "not_refused": 0.9}


def trace(number: int, release: str | None = THEIRS, who: str | None = "", **changed: object) -> Trace:
    usual = {
        "trace_id": f"t{number}",
        "time": NOW + timedelta(seconds=number),
        "tenant": "acme",
        "product": "billing",
        "route": "champion",
        "release": release,
        "base": OURS,
        "adapter": None,
        "template": OURS,
        "status": 200,
        "prompt_chars": 5,
        "prompt_tokens": 5,
        "completion_tokens": 5,
        "latency_ms": 100,
        "json_valid": True,
        "refused": False,
        "cohort": f"somebody {number}" if who == "" else who,
    }
    return Trace.model_validate(usual | changed)


def firsts(traces: list[Trace]) -> list[First]:
    return first_answers(traces, OURS, THEIRS, in_time_ms=1000)


def stream(seed: int, loses: dict[str, float], most: int, share: float = 0.5) -> Iterator[First]:
    """People drawn by chance; of the challenger's good answers a share is lost."""
    chance = random.Random(seed)
    for _ in range(most):
        challenger = chance.random() < share
        kept = {name: rate - challenger * loses.get(name, 0) for name, rate in GOOD.items()}
        yield First(challenger, {name: float(chance.random() < rate) for name, rate in kept.items()})


def decided(seed: int, loses: dict[str, float], rule: Rollout = RULE) -> Judgement:
    """Looked at after every fortieth answer."""
    seen: list[First] = []
    for first in stream(seed, loses, 8 * rule.most):
        seen.append(first)
        if len(seen) % 40 == 0 and (found := judge(rule, seen)).decision != "go on":
            return found
    raise AssertionError("it never ends")


def test_an_answer_counts_for_who_was_to_give_it() -> None:
    fell_back = [
        trace(1, THEIRS, "one", failed=(OURS,)),
        trace(2, None, "two", failed=(THEIRS,)),
        trace(3, None, "three", failed=(OURS, THEIRS)),
    ]
    unanswered = {"answered": 0.0}
    assert first_answers(fell_back, OURS, THEIRS, in_time_ms=1000) == [
        First(True, unanswered),
        First(False, unanswered),
        First(True, unanswered),
    ]


def test_people_meet_the_same_release_all_the_time_and_the_share_is_kept() -> None:
    names = [cohort("key", OURS, "acme", f"user {n}") for n in range(4000)]
    assert names == [cohort("key", OURS, "acme", f"user {n}") for n in range(4000)]
    tenth = {name for name in names if is_challenged(name, 0.1)}
    half = {name for name in names if is_challenged(name, 0.5)}
    assert tenth < half
    assert abs(len(tenth) / 4000 - 0.1) < 0.02
    assert abs(len(half) / 4000 - 0.5) < 0.03
    # another challenger, tenant or key meets other people
    for other in (("key", THEIRS, "acme"), ("key", OURS, "globex"), ("other", OURS, "acme")):
        drawn = {n for n in range(4000) if is_challenged(cohort(*other, f"user {n}"), 0.1)}
        assert abs(len(drawn & {n for n in range(4000) if names[n] in tenth}) / 4000 - 0.01) < 0.01


@given(st.one_of(st.none(), st.just(""), st.integers(), st.lists(st.text())))
def test_who_is_not_named_is_somebody_new_each_time(user: object) -> None:
    assert cohort("key", OURS, "acme", user) != cohort("key", OURS, "acme", user)


def test_everybody_counts_once_with_what_is_told_by_their_first_answer() -> None:
    found = firsts(
        [
            trace(0, who=None),  # before the challenger had a share
            trace(1, who="a", status=400, json_valid=None, refused=None),  # tells nothing of the release
            trace(2, OURS, who="a", latency_ms=3000),
            trace(3, OURS, who="a", json_valid=False),
            trace(4, THEIRS, who="b", refused=True),
            trace(5, OURS, who="b"),
            trace(6, sha256_bytes(b"another"), who="c"),
            trace(7, THEIRS, who="d", status=502, json_valid=None, refused=None),
            trace(8, OURS, who="e", status=499, json_valid=None, refused=None),
            trace(9, OURS, who="f", status=422, json_valid=False, refused=None),
        ]
    )
    assert found == [
        First(True, {"answered": 1, "in_time": 0, "json_valid": 1, "not_refused": 1}),
        First(False, {"answered": 1, "in_time": 1, "json_valid": 1, "not_refused": 0}),
        First(False, {"answered": 0}),
        First(True, {"in_time": 0}),
        First(True, {"json_valid": 0}),
    ]


@pytest.mark.parametrize(
    ("loses", "worse"),
    [
        ({"json_valid": 0.1}, "json_valid"),
        ({"in_time": 0.3}, "in_time"),
        ({"not_refused": 0.4}, "not_refused"),
        ({"answered": 0.1}, "answered"),
    ],
)
def test_a_challenger_that_is_worse_is_reverted(loses: dict[str, float], worse: str) -> None:
    for seed in range(3):
        found = decided(seed, loses)
        assert (found.decision, f"worse in {worse} after" in found.reason) == ("revert", True), found.reason
        assert found.answers < 500


def test_of_equal_releases_few_are_reverted_and_most_are_promoted() -> None:
    """Nominal: 5 % at most."""
    counts = Counter(decided(seed, {}).decision for seed in range(25))
    assert counts["revert"] <= 25 * 0.05 + 2 * (25 * 0.05 * 0.95) ** 0.5
    assert counts["promote"] >= 20


def test_what_loses_a_margin_is_hardly_ever_promoted() -> None:
    rule = Rollout(answers=60, most=400)
    counts = Counter(decided(seed, {"json_valid": 0.05}, rule).decision for seed in range(25))
    assert counts["promote"] <= 25 * 0.05 + 2 * (25 * 0.05 * 0.95) ** 0.5


def test_steps_are_gone_through_one_after_another() -> None:
    people = list(stream(1, {}, 5000))
    steps = [judge(RULE, people[:n]) for n in range(0, 600, 20)]
    assert [each.step for each in steps] == sorted(each.step for each in steps)
    assert {each.step for each in steps if each.answers < 60} == {0}
    assert all(each.decision == "go on" for each in steps if each.answers < 120)
    assert judge(RULE, []).decision == "go on"


def test_what_was_not_asked_for_is_said_to_be_unseen_and_does_not_count() -> None:
    people = [First(n % 2 == 0, {"answered": 1.0}) for n in range(3000)]
    found = judge(RULE, people)
    assert found.decision == "promote"
    assert "json_valid unseen" in found.reason
    nothing = judge(RULE, [First(n % 2 == 0, {}) for n in range(4000)])
    assert (nothing.decision, "did not tell anything" in nothing.reason) == ("revert", True)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"steps": [0.5, 0.1]}, "steps must grow"),
        ({"steps": [1.0]}, "less than 1"),
        ({"most": 100}, "most must be at least"),
        ({"margins": {}}, "one signal at least"),
        ({"margins": {"speed": 0.1}}, "margins"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(changed: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Rollout.model_validate(changed)


class Traffic:
    """Instead of waiting, people ask: whoever the routes say answers."""

    def __init__(self, line: SmallLine, release: ReleaseManifest, spoils: float = 0.0) -> None:
        self.line, self.release, self.spoils = line, release, spoils
        self.chance, self.asked, self.shares = random.Random(3), 0, []

    def wait(self, _: float) -> None:
        traces, table = self.line.parts.traces, read_routes(self.line.parts.home)
        route = table.of(self.line.product.name)
        assert route is not None
        self.shares.append(route.share)
        for _ in range(200):
            self.asked += 1
            who = cohort("key", self.release.digest, "acme", f"user {self.asked}")
            ours = is_challenged(who, route.share) and route.live_challenger() == self.release.digest
            spoilt = ours and self.chance.random() < self.spoils
            later = datetime.now(UTC)
            answered = self.release.digest if ours else None
            traces.add(
                trace(self.asked, answered, who, product=self.line.product.name, time=later, json_valid=not spoilt)
            )
        traces.flush()


def demanding(line: SmallLine, rule: Rollout) -> Product:
    return line.product.model_copy(update={"serving": Serving(canary=Canary(requests=4, rollout=rule))})


@pytest.fixture
def line(tmp_path: Path) -> SmallLine:
    return SmallLine(tmp_path)


@pytest.fixture
def approved(line: SmallLine) -> ReleaseManifest:
    line.product = demanding(line, RULE)
    line.parts.__dict__["product"] = lambda name: line.product
    release = line.release()
    line.approve(release)
    return release


def test_a_good_challenger_takes_its_steps_and_is_promoted(
    line: SmallLine, approved: ReleaseManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(line, approved)
    monkeypatch.setattr(rollout, "sleep", traffic.wait)
    heard: list[str] = []
    record = promote(line.parts, line.product, approved.digest, line.ask(), tell=heard.append)
    assert record.event == "promotion.recorded"
    assert (traffic.shares[0], traffic.shares[-1]) == (0.1, 0.5)
    assert traffic.shares == sorted(traffic.shares)
    assert heard[0].startswith("canary at 10% of the traffic: 0 answers")
    route = read_routes(line.parts.home).of(line.product.name)
    assert route is not None
    assert (route.champion, route.challenger, route.share) == (approved.digest, None, 0)
    links = {link.name: link for link in verify(line.parts, approved.digest, line.parts.signatures)}
    assert (links["canary"].status, "json_valid 1.000 against 1.000" in links["canary"].detail) == ("ok", True)


def test_one_that_breaks_one_answer_in_ten_is_reverted(
    line: SmallLine, approved: ReleaseManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(line, approved, spoils=0.1)
    monkeypatch.setattr(rollout, "sleep", traffic.wait)
    with pytest.raises(Refused, match="the canary failed: worse in json_valid"):
        promote(line.parts, line.product, approved.digest, line.ask())
    last = line.parts.log.records()[-1]
    assert (last.event, last.body["outcome"]) == ("canary.recorded", "fail")
    route = read_routes(line.parts.home).of(line.product.name)
    assert route is not None
    assert (route.champion, route.challenger, route.share) == (None, None, 0)


def test_a_watcher_that_was_killed_goes_on_with_what_was_seen(
    line: SmallLine, approved: ReleaseManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(line, approved)

    def dies(seconds: float) -> None:
        traffic.wait(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout, "sleep", dies)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            promote(line.parts, line.product, approved.digest, line.ask())
    monkeypatch.setattr(rollout, "sleep", traffic.wait)
    promote(line.parts, line.product, approved.digest, line.ask())
    events = [record.event for record in line.parts.log.records()]
    assert (events.count("canary.begun"), events.count("canary.recorded")) == (1, 1)
    assert traffic.shares == sorted(traffic.shares)


def test_time_that_did_not_tell_leaves_the_champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = SmallLine(tmp_path)
    line.product = demanding(line, RULE.model_copy(update={"hours": 1e-6}))
    release = line.release()
    line.approve(release)
    monkeypatch.setattr(rollout, "sleep", Traffic(line, release).wait)
    with pytest.raises(Refused, match="1e-06 hours did not tell: 0 answers"):
        promote(line.parts, line.product, release.digest, line.ask())


def test_a_share_is_for_the_challenger_of_now(line: SmallLine, approved: ReleaseManifest) -> None:
    with pytest.raises(Refused, match=r"is the challenger of .* no more"):
        share_traffic(line.parts, line.product, approved.digest, 0.1, 60)
