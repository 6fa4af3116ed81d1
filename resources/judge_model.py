"""Judge models: any OpenAI-compatible server, the installation's by its settings, a product's by its file."""

import os
from pathlib import Path

from data_contracts.errors import BadInput
from evals.judge import load_policy
from evals.protocols import JudgeModel
from resources.openai_endpoint import OpenAiEndpoint

_CONCURRENCY = 8
_RETRIES = 1


def open_judge(
    url: str, model: str, key_env: str, template: Path | None, policy: str, timeout: float
) -> JudgeModel | None:
    """The installation's. ``None`` where neither address nor model is named; raises `BadInput` where only one is, and
    for a key, a template or a policy that is not there."""
    if not url and not model:
        return None
    if not url or not model:
        raise BadInput("a judge model has an address and a name: set both ASSAY_JUDGE_URL and ASSAY_JUDGE_MODEL")
    if template is not None and not template.is_file():
        raise BadInput(f"the judge's chat template {template} is no file (ASSAY_JUDGE_TEMPLATE): correct the path")
    made = judge_at(url, model, key_env, policy, timeout, "ASSAY_JUDGE_KEY_ENV")
    return made._replace(template=template.read_text(encoding="utf-8")) if template else made


def judge_at(url: str, model: str, key_env: str, policy: str, timeout: float, named_by: str) -> JudgeModel:
    """``timeout`` in seconds a try; each question has two. ``named_by``: where the key's variable is named. Raises
    `BadInput`."""
    if key_env and not os.environ.get(key_env):
        raise BadInput(f"the judge's key is not in the environment variable {key_env} ({named_by}): set it")
    endpoint = OpenAiEndpoint(
        url.rstrip("/"), os.environ[key_env] if key_env else None, _CONCURRENCY, timeout, _RETRIES, patient=True
    )
    return JudgeModel(endpoint, model, "", load_policy(policy))
