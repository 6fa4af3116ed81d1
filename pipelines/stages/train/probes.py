"""What a model must not lose while it is trained, asked of it in mid-run: general questions, and requests to refuse."""

import random
from collections.abc import Sequence
from typing import Any

import torch

from evals.answers import parse_answer
from evals.refusals import refuses
from evals.suite import CallItem, ChoiceItem, ItemT, Suite, load_suite
from pipelines.recipes.recipe import Probes
from pipelines.stages.train.job import TrainJob
from pipelines.stages.train.rows import template_kwargs


class Prober:
    """Asks the items of the job's probe suites, at most ``probes.items`` of each, the same ones every time."""

    def __init__(self, job: TrainJob, probes: Probes, model: Any, tokenizer: Any) -> None:
        self.probes, self.model, self.tokenizer = probes, model, tokenizer
        self.suites = [load_suite(path) for path in job.probe_suites]
        self.seed = job.recipe.seed

    def shares(self) -> dict[str, float]:
        """Share of right answers by suite, in [0, 1]. Draws no random number, so that the training stays the same."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                return {suite.name: self._share(suite) for suite in self.suites}
        finally:
            self.model.train(training)

    def _share(self, suite: Suite) -> float:
        choices = [item for item in suite.items() if isinstance(item, ChoiceItem)]
        refusals = [item for item in suite.items() if isinstance(item, CallItem) and item.expect == "refuse"]
        right = [self._chooses(item) for item in self._drawn(choices)]
        right += [self._declines(item) for item in self._drawn(refusals)]
        return sum(right) / len(right)

    def _drawn(self, items: Sequence[ItemT]) -> list[ItemT]:
        return random.Random(self.seed).sample(list(items), min(self.probes.items, len(items)))

    def _chooses(self, item: ChoiceItem) -> bool:
        """Whether the right choice is the most likely to follow the text, as lm-eval scores ``multiple_choice``."""
        given = self.tokenizer(item.text)["input_ids"]
        likelihoods = []
        for choice in item.choices:
            ids = self.tokenizer(f"{item.text} {choice}")["input_ids"]
            logits = self.model(torch.tensor([ids], device=self.model.device), use_cache=False).logits[0].float()
            scored = torch.log_softmax(logits[len(given) - 1 : -1], dim=-1)
            said = torch.tensor(ids[len(given) :], device=self.model.device)
            likelihoods.append(float(scored.gather(1, said[:, None]).sum()))
        return likelihoods.index(max(likelihoods)) == item.answer

    def _declines(self, item: CallItem) -> bool:
        """Whether the greedy answer under the product's template refuses, in the product's form or in plain words."""
        asked = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": item.text}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            **template_kwargs(item.offered()),
        ).to(self.model.device)
        most, padding = self.probes.max_new_tokens, self.tokenizer.pad_token_id
        generated = self.model.generate(**asked, max_new_tokens=most, do_sample=False, pad_token_id=padding)
        text = self.tokenizer.decode(generated[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        answer = parse_answer(item.offered(), text)
        return refuses(answer.reply or "" if answer else text)
