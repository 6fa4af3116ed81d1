"""Krippendorff's alpha is the published one, its interval holds it, and a rater who does not read is seen."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from data_contracts.errors import BadInput
from evals.agreement import Rated, agreement, majority, rater_reports, spread
from evals.stats import MIN_CLUSTERS, StatsError
from pipelines.cli import app

# Krippendorff 2011, section C: four observers, twelve units, five values, some left out.
PUBLISHED = {
    "A": "1 2 3 3 2 1 4 1 2 . . .",
    "B": "1 2 3 3 2 2 4 1 2 5 . 3",
    "C": ". 3 3 3 2 3 4 2 2 5 1 .",
    "D": "1 2 3 3 2 4 4 1 2 5 1 .",
}


def table(rows: dict[str, str]) -> list[Rated]:
    return [
        Rated(f"unit {unit}", rater, label)
        for rater, labels in rows.items()
        for unit, label in enumerate(labels.split())
        if label != "."
    ]


def drawn(chance: random.Random, items: int, raters: int, labels: str) -> list[Rated]:
    truth = [chance.choice(labels) for _ in range(items)]
    return [
        Rated(f"i{item}", f"r{rater}", chance.choice(labels) if chance.random() < 0.3 else truth[item])
        for item in range(items)
        for rater in range(raters)
        if chance.random() < 0.9
    ]


def test_alpha_is_that_of_the_paper() -> None:
    assert agreement(table(PUBLISHED)).alpha == pytest.approx(0.743, abs=5e-4)
    assert agreement(table(PUBLISHED), order=tuple("12345")).alpha == pytest.approx(0.815, abs=5e-4)
    assert agreement(table(PUBLISHED)).items == 11


def test_alpha_is_that_of_a_computation_by_hand() -> None:
    """Two raters, ten items, one of them disputed: 20 ratings, 9 of one label and 11 of the other. Observed
    disagreement is 2 of 20 pairs, expected 2 * 9 * 11 / (20 * 19)."""
    ratings = table({"A": "1 1 1 1 1 2 2 2 2 2", "B": "1 1 1 1 2 2 2 2 2 2"})
    assert agreement(ratings).alpha == pytest.approx(1 - (2 / 20) / (2 * 9 * 11 / (20 * 19)))


@settings(deadline=None, max_examples=30)  # the first example pays for the imports
@given(st.integers(0, 10_000), st.sampled_from([(), tuple("123")]), st.integers(2, 4))
def test_neither_the_order_of_items_nor_the_names_of_raters_count(
    seed: int, order: tuple[str, ...], raters: int
) -> None:
    chance = random.Random(seed)
    ratings = drawn(chance, 40, raters, "123")
    found = agreement(ratings, order)
    assert -1 <= found.low <= found.alpha <= found.high <= 1
    names = {f"r{number}": f"name {chance.random()}" for number in range(raters)}
    shuffled = [rating._replace(rater=names[rating.rater]) for rating in ratings]
    chance.shuffle(shuffled)
    assert agreement(shuffled, order) == pytest.approx(found)


def test_a_wider_sample_gives_a_narrower_interval_around_nearly_the_same_alpha() -> None:
    few, many = (agreement(drawn(random.Random(5), items, 3, "12")) for items in (40, 4000))
    assert few.high - few.low > 5 * (many.high - many.low)
    assert few.low < many.alpha < few.high


@pytest.mark.parametrize("order", [(), tuple("123")])
def test_the_interval_is_that_of_resampling_items_one_by_one(order: tuple[str, ...]) -> None:
    chance = random.Random(11)
    ratings = drawn(chance, 60, 3, "123")
    by_item = [[each for each in ratings if each.item == f"i{item}"] for item in range(60)]
    alphas = []
    for _ in range(300):
        picked = enumerate(chance.choices(by_item, k=60))
        alphas.append(agreement([r._replace(item=f"{n}") for n, item in picked for r in item], order).alpha)
    alphas.sort()
    found = agreement(ratings, order)
    assert found.low == pytest.approx(alphas[7], abs=0.05)
    assert found.high == pytest.approx(alphas[-8], abs=0.05)


def test_full_agreement_on_a_few_items_shows_little() -> None:
    found = agreement(table({"A": "1 2 1 2 1 2 1 2 1 2", "B": "1 2 1 2 1 2 1 2 1 2"}))
    assert (found.alpha, found.high) == (1, 1)
    assert found.low < 0.5


@pytest.mark.parametrize(
    ("ratings", "order", "told"),
    [
        (table({"A": "1 1 1 1 1 1 1 1 1 1", "B": "1 1 1 1 1 1 1 1 1 1"}), (), "are the same"),
        (table({"A": "1 2 1", "B": "1 2 1"}), (), f"3 items have two ratings.*needs {MIN_CLUSTERS}"),
        (table({"A": "1 2 1 2 1 2 1 2 1 2"}), (), "0 items have two ratings"),
        (table({"A": "1 2 1 2 1 2 1 2", "B": "1 2 1 2 1 2 1 3"}), ("1", "2"), "'3' has no place"),
        ([*table({"A": "1"}), *table({"A": "2"})], (), "rates item unit 0 twice"),
    ],
)
def test_what_gives_no_alpha_is_an_error(ratings: list[Rated], order: tuple[str, ...], told: str) -> None:
    with pytest.raises(StatsError, match=told):
        agreement(ratings, order)


def test_the_report_shows_who_follows_the_place_and_who_disagrees() -> None:
    ratings = table(
        {
            "careful": "first second tie second first second first second first second",
            "other": "first second tie second first second first second first second",
            "hasty": "first first tie first first first first first first first",
        }
    )
    reports = rater_reports(ratings, tie="tie")
    assert [rater for rater, report in reports.items() if report.one_sided] == ["hasty"]
    assert reports["hasty"].agrees == 0.5
    assert reports["hasty"].shares == {"first": 0.9, "tie": 0.1}
    assert reports["careful"].compared == 5  # of the other two, one contradicts the other on the rest
    assert reports["careful"].agrees == 1
    assert spread(reports)["first"] > 0.2
    assert spread({"a": reports["careful"], "b": reports["other"]}) == {"agrees": 0, "first": 0, "second": 0, "tie": 0}


@pytest.mark.parametrize(
    ("labels", "most"), [("aab", "a"), ("ab", None), ("abc", None), ("aabc", None), ("a", "a"), ("", None)]
)
def test_a_majority_is_more_than_half(labels: str, most: str | None) -> None:
    assert majority(list(labels)) == most


def run(path: Path, rows: list[dict[str, object]], *words: str) -> tuple[str, dict[str, object]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = path.with_name("report.json")
    done = CliRunner().invoke(app, ["data", "agreement", "--in", str(path), "--report", str(report), *words])
    if done.exception:
        assert not report.exists()
        raise done.exception
    return done.output, json.loads(report.read_text())


def test_a_file_with_a_column_a_rater_and_one_with_a_row_a_rating_say_the_same(tmp_path: Path) -> None:
    labels = ["11", "22", "12", "11", "22", "00", "11", "22", "1.", "11"]
    wide = [{"id": n, "ann": said[0], "ben": None if said[1] == "." else said[1]} for n, said in enumerate(labels)]
    long = [{"id": row["id"], "who": who, "said": row[who]} for who in ("ann", "ben") for row in wide if row[who]]
    told, by_column = run(tmp_path / "wide.jsonl", wide, "--rater-columns", "ann,ben", "--tie", "0")
    words = ["--item-field", "id", "--rater-field", "who", "--label-field", "said", "--tie", "0"]
    _, by_row = run(tmp_path / "long.jsonl", long, *words)
    assert (by_column["in"], by_column["out"]) == (10, 8)
    assert by_column["dropped"] == [{"row": 2, "reason": "raters-disagree"}, {"row": 5, "reason": "raters-disagree"}]
    assert by_column["disagreements"] == [2]
    assert by_row["disagreements"] == [2, 12]
    assert (by_row["alpha"], by_row["raters"]) == (by_column["alpha"], by_column["raters"])
    assert "9 items with two ratings or more, 2 raters" in told
    assert "10 rows in, 8 out, 2 dropped" in told


@pytest.mark.parametrize(
    ("row", "words", "told"),
    [
        ({"id": 1, "a": 1}, ["--rater-columns", "a,b"], r"line 1: there is no field 'b'; its fields are: id, a"),
        ({"id": 1, "a": [1]}, ["--rater-columns", "a"], r"line 1: the field 'a' is a list"),
        ({"id": 1, "a": 1}, ["--rater-columns", "a", "--item-field", "id"], r"line 2 has the item '1' of line 1 again"),
        ({"id": "", "a": 1}, ["--rater-columns", "a", "--item-field", "id"], r"line 1 has no 'id'"),
        ({"id": 1, "a": 1}, ["--rater-columns", "a"], r"0 items have two ratings"),
        ({"id": 1, "a": 1}, [], r"give either --rater-columns"),
    ],
)
def test_a_file_of_no_use_is_one_clear_error(
    tmp_path: Path, row: dict[str, object], words: list[str], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        run(tmp_path / "rows.jsonl", [row, row], *words)
