"""Run one of lm-eval's tasks in lm-eval itself, offline, on a model whose answers are kept; the score of every item.

lm-eval writes the requests and computes the metrics; between it and its own model stands `RememberingLM`, which passes
on only those requests that were never answered.
"""

import logging
import math
import os
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

from pydantic import JsonValue

from data_contracts.digests import Digest
from data_contracts.errors import AssayError, Unavailable
from evals.kept import Progress, Respondent, engines
from evals.protocols import Answers, Kept
from evals.suite import Suite

_FEWSHOT_SEED = 1234
"""lm-eval's own default, so that its examples are those that it shows by itself."""


def engine() -> str:
    return f"lm-eval {version('lm_eval')}"


class Probed(NamedTuple):
    """Metrics by item; what each request got, by item (of choices: log-likelihood, and whether it is the greedy text;
    else the text); ``engine`` names what computed them."""

    scores: dict[str, dict[str, float]]
    answers: dict[str, JsonValue]
    engine: str


class RememberingLM:
    """What lm-eval's evaluator needs of a model. Answers are kept as lm-eval's model gets them."""

    rank, world_size = 0, 1

    def __init__(self, answers: Answers, who: Respondent, progress: Progress, fresh: bool) -> None:
        self.answers, self.who, self.progress, self.fresh = answers, who, progress, fresh
        self.used: dict[Digest, Kept] = {}

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        return self._answered("loglikelihood", requests)

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        return self._answered("generate_until", requests)

    def _answered(self, method: str, requests: Sequence[Any]) -> list[Any]:
        keys = [self._key(method, request.args) for request in requests]
        known = {} if self.fresh else self.answers.get(set(keys))
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
        total = len(known) + len(missing)
        self.progress(len(known), total)
        if missing:
            answerer = self.who.open()
            name = f"{engine()}, {answerer.engine()}"

            def keep(key: Digest, answer: Any) -> None:
                if key in known or key not in missing:
                    return
                known[key] = Kept(_json(answer, name), name)
                self.answers.put(self.who.artifact, {key: known[key]})
                self.progress(len(known), total)

            model = answerer.lm()
            model.set_cache_hook(_Hook(lambda called, args, answer: keep(self._key(called, args), answer)))
            found = getattr(model, method)(list(missing.values()), disable_tqdm=True)
            for key, answer in zip(missing, found, strict=True):
                keep(key, answer)
        self.used |= known
        return [_lm_evals(known[key].answer) for key in keys]

    def _key(self, method: str, args: Sequence[Any]) -> Digest:
        return self.who.key({"lm_eval": version("lm_eval"), "method": method, "args": list(args)})


class _Hook:
    """lm-eval's models tell it of each answer as it comes."""

    def __init__(self, heard: Any) -> None:
        self.heard = heard

    def add_partial(self, method: str, args: Sequence[Any], answer: Any) -> None:
        self.heard(method, args, answer)


def probe(
    suite: Suite,
    answers: Answers,
    who: Respondent,
    progress: Progress,
    limit: int | None = None,
    fresh: bool = False,
) -> Probed:
    """Score every item, or the first ``limit``. Raises `Unavailable` when lm-eval fails, with what it says; what was
    answered until then stays kept."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    rows = [item.model_dump(mode="json") for item in suite.items()]
    lm = RememberingLM(answers, who, progress, fresh)
    try:
        task = ConfigurableTask(
            config={
                **(suite.lm_eval or {}),
                "task": suite.name,
                "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
                "test_split": "test",
            }
        )
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
        done = evaluate(lm, {suite.name: task}, limit=limit, bootstrap_iters=0)
    except AssayError:
        raise
    except Exception as error:  # lm-eval's models and tasks raise what their libraries do
        raise Unavailable(f"lm-eval failed on suite {suite.name}: {type(error).__name__}: {error}") from error
    samples = {sample["doc"]["id"]: sample for sample in done["samples"][suite.name]}
    return Probed(
        {item: {metric: float(sample[metric]) for metric in suite.metrics} for item, sample in samples.items()},
        {item: sample["filtered_resps"] for item, sample in samples.items()},
        engines(lm.used),
    )


def _json(answer: Any, name: str) -> JsonValue:
    """An answer of lm-eval's models as JSON. Raises `Unavailable` for a likelihood that is no number."""
    value = list(answer) if isinstance(answer, tuple) else answer
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise Unavailable(f"{name} gives a likelihood that is not a number")
    return value


def _lm_evals(answer: JsonValue) -> Any:
    return tuple(answer) if isinstance(answer, list) else answer
