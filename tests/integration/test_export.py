"""A release leaves the line: its files answer as it did, through transformers and through the real llama.cpp, and each
byte of them is bound to the chain."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner as ClickRunner
from model_signing._cli import main as model_signing
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from data_contracts.digests import Digest, tree_files
from data_contracts.errors import AssayError, BadInput, Missing, Refused
from data_contracts.manifests import ExportManifest
from evals.decoding import as_served
from evals.protocols import ChatModel, Question
from evals.suite import load_suites
from pipelines.cli import app
from pipelines.recipes.product import load_product
from pipelines.stages.release.export import Exporter, Source, export
from pipelines.stages.release.verify import verify
from pipelines.stages.train.rows import template_kwargs
from resources.gguf_file import write_gguf
from resources.gguf_model import FILE, GgufModel, LlamaCpp
from resources.merged_model import MergedModel, write_merged
from tests.support.adapters import write_adapter
from tests.support.exporting import ITEMS, MERGES, ExportLine
from tests.support.tiny import make_tiny_base
from tests.support.training import TEMPLATE, TOOLS

pytestmark = pytest.mark.filterwarnings("ignore")  # of peft and transformers about parts of others

NEAR = 0.1
"""Of a log-probability: llama.cpp multiplies in bfloat16 or in eight bits, transformers in float32 here."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> ExportLine:
    return ExportLine(tmp_path_factory.mktemp("line"))


@pytest.fixture(scope="module")
def merged(place: ExportLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "merged"
    write(place, MergedModel(), out)
    return out


def write(place: ExportLine, exporter: Exporter, out: Path, items: int = ITEMS) -> ExportManifest:
    line = place.line
    return export(line.parts, line.product, place.release.digest, exporter, out, items, lambda *_: None)


def exported(place: ExportLine) -> list[object]:
    return [each.body["export"] for each in place.line.parts.log.records() if each.event == "release.exported"]


def files_link(place: ExportLine, folder: Path) -> tuple[str, str]:
    links = verify(place.line.parts, place.release.digest, place.line.parts.signatures, files=folder)
    return next((link.status, link.detail) for link in links if link.name == "files")


def test_what_is_to_be_served_merged_is_kept_in_the_store_sealed_for_the_tenant(
    place: ExportLine, tmp_path: Path
) -> None:
    line, store = place.line, place.line.parts.store
    serving = line.product.serving.model_copy(update={"placement": "merged"})
    product = line.product.model_copy(update={"serving": serving})
    found = export(line.parts, product, place.release.digest, MergedModel(), tmp_path / "out", ITEMS, lambda *_: None)
    written = tree_files(tmp_path / "out")
    with store.opened(found.tree) as folder:
        assert tree_files(folder) == {
            name: written[name] for name in written if name not in ("export.json", "model.sig")
        }
    with pytest.raises(Missing, match="only sealed for a tenant"):
        store.tree(found.tree)


def test_a_merged_release_is_the_release_in_one_folder(place: ExportLine, merged: Path, tmp_path: Path) -> None:
    manifest = ExportManifest.model_validate_json((merged / "export.json").read_bytes())
    assert manifest.digest in exported(place)
    assert place.line.parts.store.get_manifest(manifest.digest, ExportManifest) == manifest
    assert (manifest.release, manifest.format) == (place.release.digest, "merged")
    (found,) = manifest.agreement
    assert (found.n, found.differ, found.recorded) == (ITEMS, (), 0.75)
    papers = {"README.md", "policy.json", "bom.cdx.json", "manifests/release.json", "tokenizer.json", "model.sig"}
    assert papers <= tree_files(merged).keys()
    assert AutoModelForCausalLM.from_pretrained(merged).dtype == torch.bfloat16, "the precision of the base"
    assert AutoTokenizer.from_pretrained(merged).chat_template == TEMPLATE.read_text(), "the release's, not the base's"
    assert files_link(place, merged) == ("ok", f"{merged} is this release as merged, byte by byte")
    key = tmp_path / "release.pub"
    key.write_text(manifest.public_key)
    words = ["verify", "key", str(merged), "--signature", str(merged / "model.sig"), "--public_key", str(key)]
    assert ClickRunner().invoke(model_signing, words).exit_code == 0, "a stranger needs the public key alone"


def test_the_same_release_gives_the_same_bytes(place: ExportLine, merged: Path, tmp_path: Path) -> None:
    before = len(exported(place))
    again = write(place, MergedModel(), tmp_path / "again", items=3)
    first = write(place, MergedModel(), merged)
    assert again.tree == first.tree
    assert [each.n for each in again.agreement] == [3]
    assert len(exported(place)) == before + 1, "what is there already is not exported again"
    with pytest.raises(BadInput, match="holds this release as merged"):
        write(place, GgufModel("base"), merged)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    with pytest.raises(BadInput, match="is no export of this release: name a new folder"):
        write(place, MergedModel(), stranger)


def test_a_changed_copy_is_told(place: ExportLine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(place, MergedModel(), out, items=2)
    weights = out / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    status, said = files_link(place, out)
    assert (status, "model.safetensors was changed" in said) == ("broken", True)
    with pytest.raises(BadInput, match="is no export of this release"):
        write(place, MergedModel(), out)
    weights.write_bytes(data)
    manifest = json.loads((out / "export.json").read_bytes())
    (out / "export.json").write_text(json.dumps(manifest | {"format": "other"}))
    status, said = files_link(place, out)
    assert (status, "the audit log names" in said) == ("broken", True)


class Harmed:
    """The merged format, of which one step is replaced."""

    format = "merged"

    def __init__(
        self,
        write: Callable[[Source, Path], None] = write_merged,
        chat: Callable[[Mapping[Digest, Question]], None] | None = None,
    ) -> None:
        self.write, self.harm = write, chat

    def tools(self) -> dict[str, str]:
        return {}

    def open(self, folder: Path) -> ChatModel:
        model = MergedModel().open(folder)
        if self.harm is not None:
            model.chat = self.harm  # type: ignore[method-assign, assignment]
        return model


def test_what_answers_otherwise_is_not_exported(place: ExportLine, tmp_path: Path) -> None:
    base = place.line.parts.store.tree(place.line.base.tree)
    other = write_adapter(base, place.line.base.digest, tmp_path / "other", seed=4, scale=4.0)
    before = exported(place)
    with pytest.raises(Refused, match=r"nothing is written.* of 20 items of small-suite \(exact 0.750, "):
        write(
            place, Harmed(lambda source, folder: write_merged(source._replace(weights=other), folder)), tmp_path / "o"
        )
    assert exported(place) == before
    assert [path.name for path in tmp_path.iterdir()] == ["other"], "nothing is left behind"


@pytest.mark.parametrize("where", ["write", "chat"])
def test_one_that_is_ended_leaves_nothing(place: ExportLine, tmp_path: Path, where: str) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(place, Harmed(dies) if where == "write" else Harmed(chat=dies), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_approved_leaves(place: ExportLine, tmp_path: Path) -> None:
    line = place.line.copied(tmp_path / "copy")
    line.parts.log.append("approval.rejected", place.release.product, {"release": place.release.digest}, actor="test")
    for digest, said in (
        (place.release.digest, "is in development: only what"),
        (line.base.digest, "is not a registered"),
    ):
        with pytest.raises(Refused, match=said):
            export(line.parts, line.product, digest, MergedModel(), tmp_path / "out", 2, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_suite_that_changed_since_is_no_measure(place: ExportLine, tmp_path: Path) -> None:
    items = place.line.folder / "items.jsonl"
    kept = items.read_text()
    items.write_text(kept.replace("what is owing", "what is due", 1))
    with pytest.raises(Refused, match="small-suite was changed since the release was judged"):
        write(place, MergedModel(), tmp_path / "out")
    items.write_text(kept)


@pytest.mark.parametrize("precision", ["base", "q8_0"])
def test_a_gguf_answers_through_llama_cpp_as_transformers_does(
    place: ExportLine, tmp_path: Path, precision: str
) -> None:
    """Greedy tokens, and their probabilities, of the merged model in transformers."""
    folder = tmp_path / "merged"
    folder.mkdir()
    write_merged(place.source(), folder)
    file = tmp_path / FILE
    write_gguf(folder, file, precision, "small", place.release.digest)  # type: ignore[arg-type]
    again = tmp_path / "again.gguf"
    write_gguf(folder, again, precision, "small", place.release.digest)  # type: ignore[arg-type]
    assert file.read_bytes() == again.read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = [{"role": "user", "content": "Things owing: 12,50 € on the 12th, for the café in Łódź?\n\n  Now"}]
    text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    llama = LlamaCpp(file)
    wanted = {"prompt": text, "n_predict": 16, "top_k": 1, "return_tokens": True, "n_probs": 1}
    said = llama.client.post("/completion", json=wanted).json()
    assert said["tokens_evaluated"] == len(prompt)
    made = said["tokens"]
    assert len(set(made)) > 4, "a model that says one thing all the time would prove little"
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + made])).logits[0, len(prompt) - 1 : -1]
    for token, row in zip(made, torch.log_softmax(logits, -1), strict=True):
        assert float(row[token]) >= float(row.max()) - NEAR, "the best token, or one as good but for rounding"
    first = said["completion_probabilities"][0]
    assert first["id"] == made[0]
    assert first["logprob"] == pytest.approx(float(torch.log_softmax(logits, -1)[0, made[0]]), abs=NEAR)


def test_a_release_leaves_as_gguf(place: ExportLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(place.line.parts.home))
    monkeypatch.setenv("ASSAY_TRUST_ROOT", str(place.line.trust_root))
    monkeypatch.setenv("ASSAY_PRODUCTS", str(place.line.folder / "products"))
    out = tmp_path / "out"
    words = ["export", place.release.digest, "--out", str(out), "--items", "8"]
    done = CliRunner().invoke(app, [*words, "--format", "gguf"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "small-suite: " in done.stdout
    manifest = ExportManifest.model_validate_json((out / "export.json").read_bytes())
    assert manifest.engine.startswith("llama.cpp")
    assert manifest.digest in exported(place)
    assert files_link(place, out)[0] == "ok"
    assert {"model.gguf", "README.md", "chat_template.jinja"} <= tree_files(out).keys()
    done = CliRunner().invoke(app, [*words, "--format", "awq"])
    assert isinstance(done.exception, BadInput)
    assert "name one of merged, gguf, gguf-q8_0" in str(done.exception)


def test_llama_cpp_reads_the_products_prompts_token_by_token(tmp_path: Path) -> None:
    """The real tokenizer and the real template on the product's goldens, with tools on offer."""
    product = load_product("billing-assistant")
    folder = make_tiny_base(tmp_path / "model", merges=MERGES)
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    write_gguf(folder, tmp_path / FILE, "base", product.name, "sha256:0")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llama = LlamaCpp(tmp_path / FILE)
    items = [item for suite in load_suites(product) if suite.lm_eval is None for item in suite.items()]
    for item in items[::12]:
        body = as_served(product).question("", item)  # type: ignore[arg-type]
        text = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, tokenize=False, **body["chat_template_kwargs"]
        )
        read = llama.client.post("/apply-template", json=body).raise_for_status().json()["prompt"]
        assert read == text, item.id
        asked = {"content": text, "add_special": True, "parse_special": True}
        tokens = llama.client.post("/tokenize", json=asked).raise_for_status().json()["tokens"]
        assert tokens == tokenizer(text, add_special_tokens=False)["input_ids"], item.id


def test_llama_cpp_holds_answers_to_the_schema(tmp_path: Path) -> None:
    """Of a model that knows nothing of it."""
    folder = make_tiny_base(tmp_path / "model", merges=MERGES)
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    write_gguf(folder, tmp_path / FILE, "base", "small", "sha256:0")
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 24}
    body["structured_outputs"] = {"json": {"enum": ["owing", "settled"]}}
    said: dict[str, str] = {}
    LlamaCpp(tmp_path / FILE).chat({"a": body}, said.__setitem__)
    assert json.loads(said["a"]) in ("owing", "settled")


def test_a_template_that_llama_cpp_cannot_run_is_told(tmp_path: Path) -> None:
    folder = make_tiny_base(tmp_path / "model", merges=MERGES)
    template = TEMPLATE.read_text()
    (folder / "chat_template.jinja").write_text(
        template.replace("tool.parameters.keys() | sort", "tool.parameters | sort")
    )
    write_gguf(folder, tmp_path / FILE, "base", "small", "sha256:0")
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    body |= {"chat_template_kwargs": template_kwargs(TOOLS)}
    with pytest.raises(Refused, match=r"llama\.cpp does not take a question to model\.gguf: .*sort"):
        LlamaCpp(tmp_path / FILE).chat({"a": body}, lambda *_: None)


def change(folder: Path, file: str, **fields: object) -> None:
    values = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(values | fields))


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("config.json", {"architectures": ["GemmaForCausalLM"]}, "for LlamaForCausalLM only, and this is"),
        ("config.json", {"attention_bias": True}, "with attention_bias False, and this has True"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn"}}, "with rope_type default, and this has yarn"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Metaspace"}}, "this tokenizer is BPE after"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "this tokenizer is BPE after"),
    ],
)
def test_what_is_not_known_to_come_out_right_is_refused(
    tmp_path: Path, file: str, fields: dict[str, object], said: str
) -> None:
    folder = make_tiny_base(tmp_path / "model", merges=MERGES)
    change(folder, file, **fields)
    with pytest.raises(AssayError, match=f"{said}.*use --format merged"):
        write_gguf(folder, tmp_path / FILE, "base", "small", "sha256:0")


def test_a_model_that_was_trained_whole_is_copied(place: ExportLine, tmp_path: Path) -> None:
    whole = make_tiny_base(tmp_path / "whole", seed=7)
    out = tmp_path / "out"
    out.mkdir()
    write_merged(place.source()._replace(weights=whole, whole=True), out)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (out / "chat_template.jinja").read_text() == TEMPLATE.read_text()
