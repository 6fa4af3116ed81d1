"""A teacher from a folder, answering in this process with transformers, one prompt at a time. That is for a few hundred
prompts; for more, serve it (vLLM) and name its address."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_contracts.digests import Digest
from data_contracts.errors import BadInput
from pipelines.stages.data.synthetic.validate import Completion


class LocalTeacher:
    """Implements `pipelines.stages.data.synthesize.Endpoint`. No schema holds its answers: the checks that follow drop
    those out of form. The same request has the same answer on the same machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ask(
        self, bodies: Mapping[Digest, dict[str, Any]], answered: Callable[[Digest, Completion], None]
    ) -> dict[Digest, str]:
        if not bodies:
            return {}
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype="auto").to(device).eval()
        for digest, body in bodies.items():
            template = body.get("chat_template") or tokenizer.chat_template
            if not template:
                raise BadInput(f"{self.folder} has no chat template: name one in the plan's chat_template")
            tokens = tokenizer.apply_chat_template(
                body["messages"],
                chat_template=template,
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            ).to(device)
            torch.manual_seed(body["seed"])
            sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            if body["temperature"] > 0:
                sampling = {"do_sample": True, "temperature": body["temperature"], "top_p": 1.0, "top_k": 0}
            with torch.inference_mode():
                made = model.generate(
                    **tokens, max_new_tokens=body["max_tokens"], pad_token_id=tokenizer.eos_token_id, **sampling
                )
            new = made[0, tokens["input_ids"].shape[1] :]
            ended = bool(len(new)) and int(new[-1]) in _ends(model)
            text = tokenizer.decode(new, skip_special_tokens=True)
            answered(digest, Completion(text, "stop" if ended else "length"))
        return {}


def _ends(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}
