"""What a mixture is made of in which proportion: no label above its ceiling, replayed rows exactly at their share."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.digests import sha256_json
from data_contracts.errors import Refused
from pipelines.recipes.product import MixtureRule, Product
from pipelines.stages.data.proportions import Candidate, ceiling, in_proportion
from tests.support.data import DataParts, product_of, run_line, simple_rows, write_contract

KIND = ("sft",)


def labelled(counts: list[int], replayed: bool = False) -> list[Candidate]:
    names = [(f"l{label}", sha256_json([label, n])) for label, count in enumerate(counts) for n in range(count)]
    return [Candidate(name, name, "sft", label, replayed) for label, name in names]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.floats(0.05, 1))
def test_the_ceiling_is_kept_and_is_the_highest_that_can_be(counts: list[int], share: float) -> None:
    most = ceiling(counts, share)
    assert most <= share * sum(min(most, count) for count in counts) + 1e-9
    for more in range(most + 1, max(counts) + 1):
        assert more > share * sum(min(more, count) for count in counts)


@given(st.lists(st.integers(1, 30), min_size=4, max_size=8), st.integers(0, 40), st.sampled_from([0.1, 0.25, 0.5]))
def test_labels_and_replay_keep_their_shares_and_no_row_is_lost(counts: list[int], spare: int, share: float) -> None:
    items = labelled(counts)
    replayed = labelled([0] * len(counts) + [sum(counts) + spare], replayed=True)
    rule = MixtureRule(replay_share=share, max_label_share=0.5)
    dropped = in_proportion(rule, 17, KIND, [*items, *replayed])
    assert dropped.keys() <= {row.name for row in [*items, *replayed]}
    kept = [row for row in [*items, *replayed] if row.name not in dropped]
    own = Counter(row.label for row in kept if not row.replayed)
    assert max(own.values()) <= 0.5 * own.total()
    assert len(kept) - own.total() == round(share / (1 - share) * own.total())
    assert in_proportion(rule, 17, KIND, [*replayed, *items][::-1]) == dropped


def test_shares_that_cannot_be_kept_stop_the_line_with_what_would_help() -> None:
    with pytest.raises(Refused, match=r"max_label_share 0.3 cannot be kept with 3 labels: allow at least 0.334"):
        in_proportion(MixtureRule(max_label_share=0.3), 17, (), labelled([5, 5, 5]))
    items = labelled([9, 1])
    with pytest.raises(Refused, match=r"replay_share 0.5 needs 9 rows of replay sources and 1 are left"):
        in_proportion(MixtureRule(replay_share=0.5), 17, KIND, [*items[:-1], items[-1]._replace(replayed=True)])


def test_the_share_is_one_of_the_rows_that_a_trainer_sees() -> None:
    chats = labelled([0, 12])
    pairs = [row._replace(name=sha256_json(row.name), kind="preference") for row in labelled([20])]
    again = labelled([0, 0, 9], replayed=True)
    dropped = in_proportion(MixtureRule(replay_share=0.25), 17, KIND, [*chats, *pairs, *again])
    assert len(again) - len(dropped) == 4
    assert dropped.keys() <= {row.name for row in again}


def test_a_kind_whose_replay_rows_are_all_gone_stops_the_line() -> None:
    with pytest.raises(Refused, match=r"replay_share 0.25 needs 4 rows of replay sources and 0 are left"):
        in_proportion(MixtureRule(replay_share=0.25), 17, KIND, labelled([12]))


def balanced(tmp_path: Path) -> Product:
    parts = {"own": simple_rows(40), "general": [row | {"text": f"general {row['text']}"} for row in simple_rows(20)]}
    sources: list[dict[str, object]] = []
    for name, rows in parts.items():
        lines = (
            f'{{"text": "{row["text"]}", "intent": "{"rare" if n < 6 else "often"}"}}' for n, row in enumerate(rows)
        )
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        contract = write_contract(tmp_path / f"{name}.yaml", {"text": "string", "intent": "string"}, labelKey="intent")
        source: dict[str, object] = {"url": str(tmp_path / f"{name}.jsonl"), "contract": contract}
        source |= {"mapping": {"user": "{text}", "assistant": {"intent": "{intent}"}}, "replay": name == "general"}
        sources.append(source)
    return product_of(tmp_path, *sources, mixture={"replay_share": 0.25, "max_label_share": 0.6})


def test_a_product_states_them_and_the_manifest_says_what_they_left(tmp_path: Path) -> None:
    manifest = run_line(DataParts(tmp_path / "home"), balanced(tmp_path))["mixture"][0]
    assert manifest.counts.dropped == {"label-share": 25, "replay-share": 15}
    assert (manifest.counts.rows_out, manifest.facts["replay_rows"]) == (20, 5)


def test_replay_without_a_share_is_a_fault_of_the_product_file(tmp_path: Path) -> None:
    values = balanced(tmp_path).payload() | {"mixture": {}}
    with pytest.raises(ValueError, match="replay_share goes with sources that have replay: true"):
        Product.model_validate(values)
