"""A check for answers from the wrong adapter: whoever is asked among others must answer as when asked alone."""

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.support.tiny import CHATML

Ask = Callable[[str, str], str]


def asking(url: str, max_tokens: int = 8) -> Ask:
    """Ask a model server (``.../v1``) greedily; the answer's token ids as text."""

    def ask(subject: str, prompt: str) -> str:
        answer = httpx.post(
            f"{url}/chat/completions",
            json={
                "model": subject,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": max_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "chat_template": CHATML,
                "return_token_ids": True,
            },
            timeout=120,
        )
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["token_ids"])

    return ask


def leaks(ask: Ask, subjects: Sequence[str], prompts: Sequence[str], rounds: int = 3, workers: int = 16) -> list[str]:
    """Subjects that, asked all at once in random order, did not answer as they did alone; one entry an answer.

    Raises ``ValueError`` when two subjects answer alike, so that a mix-up could not be seen.
    """
    alone = {(subject, prompt): ask(subject, prompt) for subject in subjects for prompt in prompts}
    for prompt in prompts:
        if len({alone[subject, prompt] for subject in subjects}) < len(subjects):
            raise ValueError(f"subjects answer {prompt!r} alike")
    jobs = [(subject, prompt) for subject in subjects for prompt in prompts] * rounds
    random.Random(0).shuffle(jobs)
    with ThreadPoolExecutor(workers) as pool:
        answers = list(pool.map(lambda job: ask(*job), jobs))
    return [
        subject for (subject, prompt), answer in zip(jobs, answers, strict=True) if answer != alone[subject, prompt]
    ]
