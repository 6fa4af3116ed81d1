"""From answers to rows: every request is counted, order does not matter, repeats go, and depth is what policy sees."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_contracts.contract import load_contract
from data_contracts.errors import BadInput, Refused
from data_contracts.rowcheck import check_row
from pipelines.recipes.product import ROOT, load_product
from pipelines.stages.data import steps
from pipelines.stages.data.rows import load
from pipelines.stages.data.synthesize import Synthesis, synthesize
from pipelines.stages.data.synthetic.answer_file import AnswerFile
from pipelines.stages.data.synthetic.plan import Plan
from tests.support.data import DataParts, QuickAnalyzer, billing
from tests.support.teacher import DETECTOR, TEACHER, Body, FakeEndpoint, plan_of, words_of, written

CONTRACT = ROOT / "data_contracts" / "contracts" / "synthetic-conversations.yaml"


def run(folder: Path, endpoint: FakeEndpoint, plan: Plan | None = None, pii: Any = None) -> Synthesis:
    folder.mkdir(exist_ok=True)
    with AnswerFile(folder / "rows.jsonl.answers") as answers:
        return synthesize(plan or plan_of(), "served", endpoint, DETECTOR, answers, pii)


def spoilt(body: Body) -> str:
    """Every third answer is of no use, one way or another."""
    kind = body["seed"] % 6
    return {0: "no json", 3: json.dumps({"question": "Hm?", "answer": words_of("Well.")})}.get(kind) or written(body)


def test_every_request_is_a_row_or_has_a_reason(tmp_path: Path) -> None:
    made = run(tmp_path, FakeEndpoint(spoilt), plan_of(per_stratum=30))
    report = made.payload()
    assert report["in"] == 60
    assert report["out"] == len(made.rows)
    assert 0 < len(made.rows) < 60
    assert sum(report["yields"].values()) == 60
    assert report["yields"]["row"] == len(made.rows)
    assert Counter(drop["reason"].partition(":")[0] for drop in report["dropped"]) == {
        code: count for code, count in report["yields"].items() if code != "row"
    }
    assert sum(stratum["asked"] for stratum in report["strata"].values()) == 60
    assert sum(stratum["rows"] for stratum in report["strata"].values()) == len(made.rows)
    assert len({row["id"] for row in made.rows}) == len(made.rows)


def test_a_row_says_where_it_comes_from_and_keeps_its_contract(tmp_path: Path) -> None:
    plan, contract = plan_of(), load_contract(CONTRACT)
    made = run(tmp_path, FakeEndpoint(written), plan)
    assert len(made.rows) == 12
    for row in made.rows:
        assert check_row(contract.table, row) == []
        assert (row["synthetic"], row["synthetic_depth"], row["teacher"]) == (True, 1, TEACHER)
        assert (row["plan"], row["language"], row["length"]) == (plan.digest, "en", "any")
        assert row["seeds"] == [f"test/{row['intent']}/0"]
    assert made.payload()["depths"] == {"1": 12}
    other = made.rows[0] | {"teacher": "another-model"}
    assert check_row(contract.table, other) == [f"teacher: is not one of {TEACHER}; correct the value"]


def test_the_order_of_the_answers_does_not_matter(tmp_path: Path) -> None:
    plan = plan_of(per_stratum=30)
    one, other = (run(tmp_path / str(n), FakeEndpoint(spoilt, shuffled=n), plan) for n in (1, 2))
    assert one.rows == other.rows
    assert one.payload() == other.payload()


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    first = run(tmp_path, FakeEndpoint(spoilt))
    again = FakeEndpoint(spoilt)
    assert run(tmp_path, again).rows == first.rows
    assert again.asked == []
    more = FakeEndpoint(spoilt)
    run(tmp_path, more, plan_of(per_stratum=8))
    assert len(more.asked) == 4


def test_repeats_of_seeds_and_of_one_another_are_refused(tmp_path: Path) -> None:
    def parrot(body: Body) -> str:
        good = json.loads(written(body))
        if "tool" in good["answer"] and good["answer"]["tool"] == "get_invoice":
            number = good["answer"]["arguments"]["invoice_id"]
            return json.dumps(good | {"question": f"Could you open {number} for me?"})
        return json.dumps(good | {"question": "Tell me, what do I owe you for the whole of next year?"})

    report = run(tmp_path, FakeEndpoint(parrot)).payload()
    assert report["yields"] == {"row": 1, "near-duplicate-of-seed": 6, "near-duplicate": 5}
    assert {drop["match"] for drop in report["dropped"][:6]} == {"test/open-invoice/0"}
    (first,) = run(tmp_path, FakeEndpoint(parrot)).rows
    assert {drop["match"] for drop in report["dropped"][6:]} == {first["id"]}


def test_personal_data_is_refused_where_an_analyzer_looks_for_it(tmp_path: Path) -> None:
    def telling(body: Body) -> str:
        good = json.loads(written(body))
        name = "and write to Maria Keller" if body["seed"] % 2 else "and write to us"
        return json.dumps(good | {"question": f"{good['question'][:-1]} {name}?"})

    made = run(tmp_path, FakeEndpoint(telling), pii=QuickAnalyzer())
    found = Counter(drop["reason"] for drop in made.report.dropped)
    assert set(found) == {"personal-data: holds PERSON"}
    assert found["personal-data: holds PERSON"] + len(made.rows) == 12
    assert "Maria" not in json.dumps([made.rows, made.payload()])


def test_nothing_is_asked_of_a_teacher_that_may_not_be_learned_from(tmp_path: Path) -> None:
    endpoint = FakeEndpoint(written)
    teacher = {"model": "vendor-1", "terms": "the vendor's terms", "training": "forbidden"}
    with pytest.raises(Refused, match="vendor-1 is forbidden under its terms"):
        run(tmp_path, endpoint, plan_of(teacher=teacher))
    with pytest.raises(BadInput, match="no detector knows the language tlh"):
        run(tmp_path, endpoint, plan_of(languages={"en": "English", "tlh": "Klingon"}))
    assert endpoint.asked == []
    assert list(tmp_path.iterdir()) == []


def test_kept_answers_survive_a_cut_off_line_and_are_one_processs(tmp_path: Path) -> None:
    made = run(tmp_path, FakeEndpoint(written))
    kept = tmp_path / "rows.jsonl.answers"
    assert kept.stat().st_mode & 0o777 == 0o600
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-20])
    endpoint = FakeEndpoint(written)
    assert run(tmp_path, endpoint).rows == made.rows
    assert len(endpoint.asked) == 1
    assert sorted(kept.read_bytes().splitlines()) == sorted(whole.splitlines())
    with AnswerFile(kept), pytest.raises(BadInput, match="another run"):
        run(tmp_path, FakeEndpoint(written))
    kept.write_bytes(b'{"request": 1}\n' + whole)
    with pytest.raises(BadInput, match="line 1 is no kept answer"):
        run(tmp_path, FakeEndpoint(written))


def test_rows_made_from_generated_rows_are_blocked_by_a_policy_of_depth_one(tmp_path: Path) -> None:
    """The output goes through the data line, and so does an output whose seeds were such an output."""
    first = run(tmp_path / "first", FakeEndpoint(written)).rows
    seeds = tmp_path / "seeds.jsonl"
    # The second teacher is shown one row that people wrote and one of the first output at a time.
    people = {**first[0], "id": "person-1", "synthetic_depth": 0}
    seeds.write_text("".join(json.dumps(row) + "\n" for row in (people, first[1])))
    intent = plan_of().intents[0].payload() | {"seeds": [], "seed_file": str(seeds)}
    second = run(tmp_path / "second", FakeEndpoint(written), plan_of(seed=9, intents=[intent])).rows
    assert {row["synthetic_depth"] for row in first} == {1}
    assert {row["synthetic_depth"] for row in second} == {2}

    rows = tmp_path / "rows.jsonl"
    deepest = {**second[0], "id": "synthetic-" + "1" * 16, "synthetic_depth": "9" * 30}
    broken = {**second[0], "id": "synthetic-" + "0" * 16, "synthetic_depth": "none"}
    rows.write_text("".join(json.dumps(row) + "\n" for row in [*first, *second, deepest, broken]))
    parts, product = DataParts(tmp_path / "home"), product_on(tmp_path, rows, max_depth=1)
    raw, _ = steps.raw(parts, product)
    contracted, _ = steps.contracted(parts, product, raw)
    assert contracted.counts.dropped == {"contract": 1}
    ledgered, _ = steps.ledgered(parts, product, contracted)
    assert ledgered.counts.rows_out == len(first)
    assert ledgered.counts.dropped == {"synthetic-depth": len(second) + 1}
    assert ledgered.synthetic_share == 1.0
    assert {item.origin.synthetic_depth for item in load(parts, ledgered)} == {1}

    allowing = product_on(tmp_path, rows, max_depth=2)
    ledgered, _ = steps.ledgered(parts, allowing, contracted)
    assert ledgered.counts.dropped == {"synthetic-depth": 1}
    with pytest.raises(Refused, match="human_floor is 50%"):
        steps.mixture(parts, allowing, ledgered)


def product_on(folder: Path, rows: Path, max_depth: int) -> Any:
    rule = {
        "licences": ["CC0-1.0"],
        "consent": ["synthetic"],
        "human_floor": 0.5,
        "max_synthetic_depth": max_depth,
    }
    (folder / "policy.yaml").write_text(yaml.safe_dump({"name": "test", "purposes": {"own-model": rule}}))
    source = {"url": str(rows), "contract": str(CONTRACT)}
    values = billing().payload() | {"name": "other", "sources": [source], "mixture": {}}
    values["data_policy"] = str(folder / "policy.yaml")
    (folder / "other.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(values))))
    return load_product(str(folder / "other.yaml"))


@pytest.mark.parametrize("change", [{"required": False}, {"logicalType": "string"}, {"name": "other"}])
def test_a_contract_names_a_column_of_depths_that_is_always_there(tmp_path: Path, change: dict[str, object]) -> None:
    contract = yaml.safe_load(CONTRACT.read_text())
    column = next(each for each in contract["schema"][0]["properties"] if each["name"] == "synthetic_depth")
    column.update(change)
    (tmp_path / "contract.yaml").write_text(yaml.safe_dump(contract))
    with pytest.raises(BadInput, match="synthetic_depth"):
        load_contract(tmp_path / "contract.yaml")
