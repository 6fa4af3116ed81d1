"""A model from a folder, or an adapter on it, answering in this process with transformers (and peft).

The schema of an answer is held by xgrammar, as vLLM does it, so that both are asked the same.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from data_contracts.actions import code_version
from data_contracts.digests import Digest, sha256_file, tree_digest
from data_contracts.errors import BadInput, Refused
from evals.protocols import Question
from pipelines.stages.train.hardware import computes_bf16, this_machine

_LIBRARIES = ("torch", "transformers", "peft", "xgrammar")
_WEIGHTS = ".safetensors"


class LocalModel:
    """Implements `evals.protocols.Answerer`. ``batch`` questions are answered at once, those of like length together.

    It computes in bfloat16 where the machine does so as fast as in float32, in float32 elsewhere, as training and
    serving do."""

    def __init__(self, folder: Path, adapter: Path | None = None, batch: int = 16) -> None:
        self.folder, self.adapter, self.batch = folder, adapter, batch
        self.dtype = _precision()

    @staticmethod
    def lock() -> JsonValue:
        """What decides the answers beside model and question."""
        machine = this_machine()
        return {
            "versions": {name: version(name) for name in _LIBRARIES},
            "dtype": _precision(),
            "device": machine.kind if machine else None,
            "code": code_version(__name__),
        }

    def engine(self) -> str:
        return f"transformers {version('transformers')}, {self.dtype}"

    def chat(self, questions: Mapping[Digest, Question], answered: Callable[[Digest, str], None]) -> None:
        import torch

        prompts = {key: self._prompt(question) for key, question in questions.items()}
        for keys in _batches(questions, {key: len(prompt) for key, prompt in prompts.items()}, self.batch):
            asked = [questions[key] for key in keys]
            most = asked[0]["max_tokens"]
            tokens = self._tokenizer(
                [prompts[key] for key in keys], add_special_tokens=False, padding=True, return_tensors="pt"
            ).to(self._model.device)
            longest = self._model.config.max_position_embeddings
            if tokens["input_ids"].shape[1] + most > longest:
                raise Refused(f"a question and an answer of {most} tokens do not fit the model's {longest}")
            with torch.inference_mode():
                made = self._model.generate(
                    **tokens,
                    max_new_tokens=most,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    eos_token_id=sorted(self._ends()),
                    pad_token_id=self._tokenizer.pad_token_id,
                    logits_processor=[*self._grammars(asked), *_draws(asked)],
                )
            new = made[:, tokens["input_ids"].shape[1] :]
            for key, text in zip(keys, self._tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                answered(key, text)

    def lm(self) -> Any:
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=self._model, tokenizer=self._tokenizer, batch_size=self.batch)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=getattr(torch, self.dtype))
        if self.adapter is not None:
            model = adapted(model, self.adapter)
        return model.to(device).eval()

    def _prompt(self, question: Question) -> str:
        template = question.get("chat_template") or self._tokenizer.chat_template
        if not template:
            raise BadInput(f"{self.folder} has no chat template: name one (--template)")
        text: str = self._tokenizer.apply_chat_template(
            question["messages"],
            chat_template=template,
            add_generation_prompt=True,
            tokenize=False,
            **question.get("chat_template_kwargs", {}),
        )
        return text

    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return {self._tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def _grammars(self, asked: list[Question]) -> list[Any]:
        """What strikes out every token that the questions' schemas do not admit; nothing where there is no schema."""
        if "structured_outputs" not in asked[0]:
            return []
        from xgrammar.contrib.hf import LogitsProcessor

        schemas = [json.dumps(question["structured_outputs"]["json"]) for question in asked]
        return [LogitsProcessor([self._compiler.compile_json_schema(schema) for schema in schemas])]

    @cached_property
    def _compiler(self) -> Any:
        import xgrammar

        size = self._model.config.vocab_size
        return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(self._tokenizer, vocab_size=size))


class _Draws:
    """Turns the likeliest token into a sampled one: the largest of scores / temperature plus Gumbel noise is drawn with
    the softmax's probability. Each row has its own numbers, so that an answer does not depend on its batch."""

    def __init__(self, asked: list[Question]) -> None:
        import torch

        self.rows = [(question["temperature"], torch.Generator().manual_seed(question["seed"])) for question in asked]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        width = scores.shape[-1]
        uniform = torch.stack([torch.rand(width, generator=own, dtype=torch.float64) for _, own in self.rows])
        temperatures = torch.tensor([[temperature] for temperature, _ in self.rows], device=scores.device)
        return scores / temperatures - (-uniform.log()).log().to(scores)


def _draws(asked: list[Question]) -> list[_Draws]:
    return [_Draws(asked)] if asked[0].get("temperature") else []


def _precision() -> str:
    return "bfloat16" if computes_bf16() else "float32"


def folder_digest(folder: Path) -> Digest:
    """Names a model's or an adapter's folder by its files, not those of its subfolders, which nothing loads. Equal to
    the digest of the same files in the store. Raises `BadInput` for a folder without weights."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not any(path.suffix == _WEIGHTS for path in files):
        raise BadInput(f"{folder} holds no {_WEIGHTS} file: name the folder of a model or an adapter")
    return tree_digest({path.name: sha256_file(path) for path in files})


def adapters_base(adapter: Path) -> str:
    """What the adapter says that it was trained on: a digest, a path, a hub id."""
    try:
        return str(json.loads((adapter / "adapter_config.json").read_bytes())["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{adapter} is not an adapter: adapter_config.json names no base ({error})") from error


def weights_of(folder: Path) -> dict[str, Digest]:
    """Name and digest of every file of weights."""
    return {path.name: sha256_file(path) for path in sorted(folder.glob(f"*{_WEIGHTS}"))}


def adapted(model: Any, adapter: Path) -> Any:
    """Raises `Refused` for an adapter of which something has no place in the model, or the other way round."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    base = model.name_or_path
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is missing, which is found below
            both = PeftModel.from_pretrained(model, str(adapter))
        with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
            said = ", ".join(sorted(set(file.keys()) ^ set(get_peft_model_state_dict(both)))[:3])
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())[:300]
    if said:
        raise Refused(f"the adapter {adapter} does not fit the model {base}: {said}")
    return both


def _batches(questions: Mapping[Digest, Question], lengths: Mapping[Digest, int], size: int) -> Iterator[list[Digest]]:
    """Questions with the same limits together, the longest first: what does not fit fails at once."""

    def kind(key: Digest) -> tuple[int, bool, bool]:
        question = questions[key]
        return question["max_tokens"], "structured_outputs" in question, bool(question.get("temperature"))

    for each in sorted({kind(key) for key in questions}):
        alike = sorted((key for key in questions if kind(key) == each), key=lambda key: (-lengths[key], key))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))
