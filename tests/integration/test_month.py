"""Short months of the demo product, in the real stores: left alone while nothing changes, retrained when it does, held
by a freeze and let go by its end."""

from pathlib import Path

import pytest

from pipelines.stages.release.verify import verify
from tests.support.month import POLICY, PRODUCT, Change, Demo, Look, Month, World, replayed

WINDOWS, AFTER = 14, 5


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return Demo(tmp_path_factory.mktemp("month") / "demo", questions=300)


def played(month: Month, change: Change | None, windows: int = WINDOWS) -> list[Look]:
    """A look at each window, all of them justified by the log, and the log by its keys."""
    looks = list(month.play(change, windows, AFTER))
    assert [each.window for each in looks if each.window <= AFTER] == list(range(AFTER + 1))
    assert replayed(month) == len(looks), "each look is one record"
    parts, release = month.parts, month.demo.release.digest
    links = [each for each in verify(parts, release, parts.signatures) if each.name in ("audit log", "trust root")]
    assert [each.status for each in links] == ["ok", "ok"]
    return looks


def retrained(looks: list[Look]) -> list[int]:
    return [each.window for each in looks if each.decision.decision == "retrain"]


def features(look: Look, month: Month) -> set[str]:
    (told,) = [
        each
        for each in month.parts.log.records()
        if each.event == "retrain.decided" and each.body["record"] == look.decision.digest
    ]
    named = told.body["features"]
    assert isinstance(named, list)
    return set(map(str, named))


def test_a_stable_month_is_left_alone(demo: Demo, tmp_path: Path) -> None:
    looks = played(demo.month(tmp_path / "month", 1), None)

    assert {each.decision.decision for each in looks} == {"wait"}


@pytest.mark.parametrize(
    ("change", "within", "seen"),
    [
        (lambda _: World(topic=0.6), 4, "answer_meaning"),
        (lambda n: World(bad=0.02 + 0.015 * n, corrected=0.01 + 0.01 * n), 7, "bad_ratings"),
        (lambda _: World(new_label=0.4), 4, "new_label"),
    ],
    ids=["topic shift", "slow decay", "new label"],
)
def test_a_change_that_lasts_is_retrained_for_within_days(
    demo: Demo, tmp_path: Path, change: Change, within: int, seen: str
) -> None:
    month = demo.month(tmp_path / "month", 1)
    looks = played(month, change)

    first, *others = retrained(looks)
    assert AFTER < first <= AFTER + within
    answered: set[str] = set()
    for window in (first, *others):
        (look,) = [each for each in looks if each.window == window and each.decision.decision == "retrain"]
        new = features(look, month)
        assert not new <= answered, "one drift is answered once"
        answered |= new
    assert seen in answered
    rest = {each.decision.decision for each in looks if each.window > first and each.window not in others}
    assert rest <= {"wait", "hold"}


def test_a_freeze_holds_the_retraining_and_its_end_lets_it_go(demo: Demo, tmp_path: Path, store_url: str) -> None:
    month = demo.month(tmp_path / "month", 2, store_url)
    month.freeze(AFTER + 1, AFTER + 5)
    looks = played(month, lambda _: World(topic=0.6), windows=AFTER + 7)

    held = [each for each in looks if each.decision.decision == "hold" and each.decision.held_by == "freeze"]
    until = held[0].decision.not_before
    assert until is not None
    assert held[0].window <= AFTER + 4
    first = next(each for each in looks if each.decision.decision == "retrain")
    after = next(each for each in looks if each.time >= until)
    assert first == after, "the first look after the freeze"
    assert (first.time - until).total_seconds() <= 3600
    assert all(each.time < until for each in held)
    assert month.product.name == PRODUCT
    assert POLICY.digest == first.decision.policy
