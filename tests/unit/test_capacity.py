"""What serving takes: by the shapes of the base, in vLLM's own blocks, and a refusal with the remedy."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from typer.testing import CliRunner

from data_contracts.errors import BadInput, Refused
from pipelines.cli import app
from pipelines.stages.serve.capacity import (
    BLOCK,
    GIB,
    Sizing,
    allowed_rank,
    capacity,
    refuse_what_cannot_be_served,
)
from pipelines.stages.train.estimate import Shapes, shapes_of
from pipelines.stages.train.hardware import Machine
from tests.support.adapters import write_adapter
from tests.support.serving import tiny_product
from tests.support.tiny import make_tiny_base

USUAL = Sizing(slots=8, max_rank=16, max_model_len=2048, kv_gib=1, width=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


def with_room(**changed: int) -> Sizing:
    return USUAL.model_copy(update=changed)


def test_a_slot_holds_an_adapter_of_the_greatest_rank(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(base, "sha256:" + "0" * 64, tmp_path / "adapter", seed=0, rank=16)
    with safe_open(adapter / "adapter_model.safetensors", "pt") as tensors:
        numbers = sum(tensors.get_tensor(name).numel() for name in tensors.keys())  # noqa: SIM118 - not a mapping
    assert capacity(shapes_of(base), USUAL).adapters == 8 * numbers * 2
    assert capacity(shapes_of(base), with_room(max_rank=9)).adapters == 8 * numbers * 2
    assert capacity(shapes_of(base), with_room(max_rank=8, width=4)).adapters == 8 * numbers * 2


def test_the_cache_holds_what_vllm_says_that_it_holds() -> None:
    """SmolLM2-135M, 30 layers of 3 heads of 64 numbers: vLLM printed 46,592 tokens, 22.75 requests of 2,048."""
    smol = Shapes(tensors={}, file_bytes=0, hidden=576, intermediate=1536, keys=192, layers=30, vocabulary=49152)
    found = capacity(smol, USUAL)
    assert (found.kv_tokens, found.at_once, found.kv_cache) == (46_592, 22.75, GIB)
    assert capacity(smol, with_room(width=4)).kv_tokens == pytest.approx(46_592 / 2, abs=BLOCK)


def test_one_slot_stays_empty_and_one_is_the_bases(base: Path) -> None:
    assert capacity(shapes_of(base), with_room(slots=3)).residents == 1


def test_ranks_are_those_that_vllm_takes() -> None:
    assert [allowed_rank(rank) for rank in (1, 8, 9, 17, 500)] == [8, 8, 16, 32, 512]
    with pytest.raises(BadInput, match="ASSAY_SERVE_MAX_RANK is 513"):
        allowed_rank(513)


def test_what_cannot_fit_is_refused_with_the_remedy(base: Path) -> None:
    small = Machine(kind="cpu", total=GIB // 2, free=GIB // 4)
    found = capacity(shapes_of(base), USUAL)
    with pytest.raises(Refused, match=r"the machine has 0\.5 GB: .* Lower ASSAY_SERVE_KV_GIB"):
        refuse_what_cannot_be_served(found, USUAL, small)
    refuse_what_cannot_be_served(found, USUAL, None)
    long = with_room(max_model_len=found.kv_tokens + 1)
    with pytest.raises(Refused, match="raise ASSAY_SERVE_KV_GIB or lower ASSAY_SERVE_MAX_MODEL_LEN"):
        refuse_what_cannot_be_served(capacity(shapes_of(base), long), long, None)


def test_the_command_tells_and_exits_with_3_when_it_cannot_fit(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(base.parent / "home"))
    monkeypatch.setenv("ASSAY_BASE_MODEL", str(base))
    told = CliRunner().invoke(app, ["capacity", "billing-assistant"])
    assert (told.exit_code, "adapters loaded at once: 6, of rank 64 at most" in told.output) == (0, True)
    assert "pinned: none (5 can be)" in told.output
    monkeypatch.setenv("ASSAY_SERVE_KV_GIB", "100000")
    refused = CliRunner().invoke(app, ["capacity", "billing-assistant", "--json"])
    assert refused.exit_code == 3
    assert json.loads(refused.stdout)["kv_gib"] == 100_000
    assert "Lower ASSAY_SERVE_KV_GIB" in refused.stderr


def test_merged_weights_take_a_second_server_that_the_command_reckons_and_refuses(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = tiny_product(tmp_path / "product", "ant").model_dump(mode="json") | {"serving": {"placement": "merged"}}
    (tmp_path / "ant.yaml").write_text(yaml.safe_dump(product))
    for name, value in (("HOME", tmp_path / "home"), ("BASE_MODEL", base), ("PRODUCTS", tmp_path)):
        monkeypatch.setenv(f"ASSAY_{name}", str(value))
    told = CliRunner().invoke(app, ["capacity", "ant"])
    assert told.exit_code == 0
    assert "merged weights of ant: about 3.37 GB more, in a second vLLM" in told.output
    found = json.loads(CliRunner().invoke(app, ["capacity", "ant", "--json"]).stdout)
    assert found["merged"] == ["ant"]
    assert found["total"] - found["adapters"] == found["merged_total"], "the same without adapters"
    room = (found["total"] + found["merged_total"] / 2) / 1e9
    monkeypatch.setattr(
        "pipelines.stages.train.hardware.this_machine", lambda: Machine(kind="cpu", total=int(room * 1e9), free=0)
    )
    refused = CliRunner().invoke(app, ["capacity", "ant"])
    assert refused.exit_code == 3
    assert "by the server of adapters and here vLLM itself" in refused.stderr


def test_the_command_refuses_more_pinned_products_than_slots_by_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ant", "bee"):
        product = tiny_product(tmp_path / "product", name).model_dump(mode="json") | {
            "serving": {"placement": "pinned"}
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(product))
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSAY_BASE_MODEL", str(base))
    monkeypatch.setenv("ASSAY_PRODUCTS", str(tmp_path))
    monkeypatch.setenv("ASSAY_SERVE_SLOTS", "5")
    told = CliRunner().invoke(app, ["capacity", "ant"])
    assert (told.exit_code, "pinned: ant, bee (2 can be)" in told.output) == (0, True)
    monkeypatch.setenv("ASSAY_SERVE_SLOTS", "4")
    refused = CliRunner().invoke(app, ["capacity", "ant"])
    assert refused.exit_code == 3
    assert "ant, bee are to be pinned, and 1 adapters can be: raise ASSAY_SERVE_SLOTS" in refused.stderr
