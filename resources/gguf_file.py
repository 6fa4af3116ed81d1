"""A model folder as one GGUF file, for llama.cpp and what is built on it. Only the Llama architecture with a byte-level
BPE tokenizer: for those the rules are few and are checked here. Anything else is refused, since a file that is a little
wrong loads and answers nonsense."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_contracts.errors import Refused

if TYPE_CHECKING:
    import torch

Precision = Literal["base", "q8_0"]
"""Of the matrices: as in the safetensors file, or blocks of 32 weights of 8 bits with a scale."""

_SPLITS = {
    "gpt-2": [{"type": "ByteLevel", "use_regex": True}],
    "smollm": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": True}],
}
"""llama.cpp's name of a way to split text before merging -> the same in ``tokenizer.json``."""
_BLOCK = 32


def write_gguf(model: Path, file: Path, precision: Precision, product: str, release: str) -> None:
    """Write ``file`` from the folder ``model``: ``config.json``, ``*.safetensors``, ``tokenizer.json``,
    ``chat_template.jinja``. Equal folders give equal bytes. ``product`` and ``release`` (a digest) go into the
    metadata. Raises `Refused` for a model that is not of the kind that is written here."""
    import gguf

    config = json.loads((model / "config.json").read_bytes())
    _check_model(config)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(product)
    writer.add_string("assay.release", release)
    _describe(writer, config)
    _add_tokenizer(writer, model, config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    kinds = set()
    for name, tensor in _tensors(model):
        place = names.get_name(name, try_suffixes=(".weight",))
        if place is None:
            raise Refused(f"GGUF has no place for the tensor {name} of this model: use --format merged")
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            tensor = _turned(tensor, heads)
        kinds.add(_add_tensor(writer, precision, place, tensor))
    matrices = max(kinds - {gguf.GGMLQuantizationType.F32}, default=gguf.GGMLQuantizationType.F32)
    writer.add_file_type(_file_type(matrices))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _check_model(config: dict[str, Any]) -> None:
    family = config.get("architectures")
    if family != ["LlamaForCausalLM"]:
        raise Refused(f"GGUF is written for LlamaForCausalLM only, and this is {family}: use --format merged")
    rope = (config.get("rope_parameters") or {}).get("rope_type", "default")
    wanted: dict[str, tuple[Any, Any]] = {
        each: (config.get(each, False), False) for each in ("attention_bias", "mlp_bias")
    }
    wanted |= {"rope_type": (rope, "default"), "hidden_act": (config.get("hidden_act"), "silu")}
    for field, (found, known) in wanted.items():
        if found != known:
            raise Refused(f"GGUF is written for Llama with {field} {known}, and this has {found}: use --format merged")


def _describe(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: Any, model: Path, config: dict[str, Any]) -> None:
    """The tokenizer as it is: no token is put before or after a text, since the chat template writes them all."""
    from gguf import TokenType

    described = json.loads((model / "tokenizer.json").read_bytes())
    bpe = described["model"]
    tokens = [f"[PAD{number}]" for number in range(config["vocab_size"])]
    types = [TokenType.UNUSED] * len(tokens)
    for text, number in bpe["vocab"].items():
        tokens[number], types[number] = text, TokenType.NORMAL
    for added in described["added_tokens"]:
        number = added["id"]
        tokens[number] = added["content"]
        types[number] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(described))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = [each if isinstance(each, str) else " ".join(each) for each in bpe["merges"]]
    if not merges:
        raise Refused("llama.cpp reads no tokenizer without merges, and this one has none: use --format merged")
    writer.add_token_merges(merges)
    for field, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        if isinstance(config.get(field), int):
            add(config[field])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template((model / "chat_template.jinja").read_text())


def _split(described: dict[str, Any]) -> str:
    """llama.cpp's name for how this tokenizer splits text. Raises `Refused` where it has none that is known here."""
    bpe, before = described["model"], described["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    plain = not described["normalizer"] and not any(
        bpe.get(field) for field in ("dropout", "byte_fallback", "ignore_merges", "continuing_subword_prefix")
    )
    if bpe["type"] == "BPE" and plain and not any(step.get("add_prefix_space") for step in steps):
        for name, wanted in _SPLITS.items():
            if len(steps) == len(wanted) and all(map(_within, wanted, steps)):
                return name
    kinds = [step.get("type") for step in steps]
    raise Refused(
        f"GGUF is written for byte-level BPE as GPT-2 or SmolLM have it, and this tokenizer is {bpe['type']} after "
        f"{kinds}: use --format merged"
    )


def _within(wanted: dict[str, Any], step: dict[str, Any]) -> bool:
    return wanted.items() <= step.items()


def _tensors(model: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Name and tensor, one file after another, in the order of their names."""
    from safetensors import safe_open

    for path in sorted(model.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            for name in sorted(weights.keys()):
                yield name, weights.get_tensor(name)


def _add_tensor(writer: Any, precision: Precision, name: str, tensor: "torch.Tensor") -> Any:
    """Its type in the file. Vectors (norms) stay in float32: llama.cpp wants them so."""
    import gguf
    import torch

    kinds = gguf.GGMLQuantizationType
    if precision == "q8_0" and tensor.ndim == 2 and tensor.shape[1] % _BLOCK == 0:
        kind, data = kinds.Q8_0, gguf.quants.quantize(tensor.to(torch.float32).numpy(), kinds.Q8_0)
    else:
        kept = tensor.to(torch.float32) if tensor.ndim == 1 else tensor.contiguous()
        kind = {torch.bfloat16: kinds.BF16, torch.float16: kinds.F16, torch.float32: kinds.F32}[kept.dtype]
        data = kept.view(torch.uint8).numpy()
    writer.add_tensor(name, data, raw_dtype=kind)
    return kind


def _turned(tensor: "torch.Tensor", heads: int) -> "torch.Tensor":
    """llama.cpp turns neighbouring pairs by the rotary embedding, transformers the halves of a head: rows are put in
    the order that makes these the same."""
    rows, columns = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def _file_type(matrices: Any) -> int:
    import gguf

    kinds = gguf.GGMLQuantizationType
    named: dict[Any, int] = {
        kinds.F32: gguf.LlamaFileType.ALL_F32,
        kinds.F16: gguf.LlamaFileType.MOSTLY_F16,
        kinds.BF16: gguf.LlamaFileType.MOSTLY_BF16,
        kinds.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    return named[matrices]
