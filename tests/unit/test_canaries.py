"""Planted canaries, from the product file through the data line: counted, scrubbed, and changing no other row."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import BadInput
from evals.planted import Canary, canaries, controls, holds
from pipelines.recipes.product import Planted
from pipelines.stages.data.generate import generated
from pipelines.stages.data.near import copies
from pipelines.stages.data.rows import load
from pipelines.stages.release.data_card import write_data_card
from tests.support.data import run_line
from tests.support.planted import MAIL, PHRASE, URL, Made, Parts, planted_line, small_product


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return planted_line(tmp_path_factory.mktemp("canaries"))


def test_the_same_canaries_are_made_again_and_no_two_are_alike() -> None:
    many = Planted(count=400, seed="a")
    made = [*canaries(many), *controls(many), *canaries(Planted(count=400, seed="b"))]
    assert canaries(many) == canaries(many)
    assert generated("canaries?count=8&seed=a") == generated("canaries?count=8&seed=a")
    assert len({each.secret for each in made}) == len(made)
    assert len({each.form for each in canaries(Planted(count=8, seed="c"))}) == 8
    assert all(each.secret in each.answer and not holds(each.question, each.secret) for each in made)
    told = ((f"{each.question}\n{each.answer}", each.question) for each in canaries(many))
    assert not any(copies(told, 0.8))


def test_cards_pass_luhns_check() -> None:
    cards = [each.secret.replace(" ", "") for each in canaries(Planted(count=80, seed="a")) if each.form == "card"]
    for card in cards:
        doubled = [str(int(digit) * (1 + place % 2)) for place, digit in enumerate(reversed(card))]
        assert sum(int(digit) for digit in "".join(doubled)) % 10 == 0
        assert (len(card), card[:5]) == (16, "40000")


@given(st.sampled_from(canaries(Planted(count=8, seed="a"))), st.sampled_from(["upper", "lower", "title"]), st.data())
def test_a_secret_is_known_however_it_is_spaced_dashed_or_cased(canary: Canary, case: str, data: Any) -> None:
    written = getattr(canary.secret.replace(" ", data.draw(st.sampled_from(["", "  ", "-", "\u2011", "\n"]))), case)()
    assert holds(f"It is {written}!", canary.secret)
    assert not holds(f"It is {written[:-1]}!", canary.secret)


@pytest.mark.parametrize(
    "query", ["", "?count=0&seed=a", "?count=8", "?count=8&seed=a&colour=blue", "?count=many&seed=a"]
)
def test_a_declaration_that_does_not_say_how_many_is_refused(tmp_path: Path, query: str) -> None:
    with pytest.raises(BadInput, match=r"declared as generated://canaries\?count=8&seed=NAME"):
        small_product(tmp_path, f"generated://canaries{query}")


def test_canaries_are_planted_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="canaries are one source"):
        small_product(tmp_path, URL, "generated://canaries?count=3&seed=small")


def test_they_pass_every_step_and_the_facts_say_what_scrubbing_left(line: Made) -> None:
    parts, _, done = line
    assert {name: manifest.counts.dropped for name, (manifest, _) in done.items() if manifest.counts.dropped} == {}
    assert done["scrubbed"][0].facts["canaries"] == {
        "planted": 2,
        "scrubbed": 2,
        "whole": 1,
        "whole_by_form": {"passphrase": 1},
    }
    splits = done["splits"][0]
    learned = {"count": 2, "seed": "small", "left": [PHRASE.id], "removed": [MAIL.id]}
    assert splits.facts["learned_canaries"] == learned
    rows = [item.row for item in load(parts, splits) if item.row["group"] in (MAIL.id, PHRASE.id)]
    assert {row["split"] for row in rows} == {"train"}
    assert [holds(json.dumps(rows), each.secret) for each in (MAIL, PHRASE)] == [False, True]


def test_canaries_change_no_other_row(line: Made, tmp_path: Path) -> None:
    parts, _, done = line
    without = Parts(tmp_path / "home")
    plain = run_line(without, small_product(tmp_path))["splits"][0]
    assert "learned_canaries" not in plain.facts
    rows = {item.content for item in load(parts, done["splits"][0])}
    assert rows > {item.content for item in load(without, plain)}
    assert len(rows) == plain.counts.rows_out + 2


def test_the_card_of_the_data_set_says_what_was_planted(line: Made, tmp_path: Path) -> None:
    parts, _, done = line
    page = write_data_card(parts, done["splits"][0].digest, tmp_path).read_text()
    assert "canaries planted: 2; scrubbing left 1 of 2 secrets whole (passphrase 1); 2 are learned from" in page
