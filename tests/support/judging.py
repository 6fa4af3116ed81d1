"""A scripted judge for a real HTTP server, sets of items with labels for it, and what a judge needs in tests."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evals.calibration import LabelledSet, read_set
from evals.judge import Judge, PromptJudge, load_judge
from resources.artifact_store import FsspecArtifactStore
from resources.openai_endpoint import OpenAiEndpoint
from resources.tenant_keys import TenantKeys
from tests.support.teacher import Body, Reply

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "juniper"]


def prompt_judge(name: str) -> PromptJudge:
    found = load_judge(name)
    assert isinstance(found, PromptJudge)
    return found


def faithful_rows(count: int = 60) -> list[dict[str, Any]]:
    """Rows of BEGIN's columns: every other response repeats its source, the others claim something else."""
    rows = []
    for n in range(count):
        word = f"{WORDS[n % 10]} {n}"
        right = n % 2 == 0
        rows.append(
            {
                "knowledge": f"The store sells {word} and closes at {n % 12 + 1}.",
                "message": "What do they sell?",
                "response": f"They sell {word}." if right else f"They sell {word} and give it away for free.",
                "begin_label": "Fully attributable" if right else "Not fully attributable",
            }
        )
    return rows


def paired_rows(count: int = 60) -> list[dict[str, Any]]:
    """Rows of LLMBar's columns: the better output does what the input asks."""
    rows = []
    for n in range(count):
        good, bad = f"{WORDS[n % 10]} {n}", f"no idea {n}"
        first = n % 2 == 0
        rows.append(
            {
                "input": f"Write {WORDS[n % 10]} {n}.",
                "output_1": good if first else bad,
                "output_2": bad if first else good,
                "label": 1 if first else 2,
            }
        )
    return rows


def prompt_of(body: Body) -> str:
    return str(body["messages"][-1]["content"])


def tagged(body: Body, tag: str) -> str:
    found = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", prompt_of(body), re.DOTALL)
    assert found, f"no <{tag}> in the prompt"
    return found[1]


def oracle(rows: list[dict[str, Any]]) -> Callable[[Body, int], Reply]:
    """Answers from the labels, by the texts in the prompt, in whichever order they stand. Where people label the same
    pair both ways it keeps to the first, as a judge has to that does not contradict itself."""
    faithful = {(r["knowledge"], r["response"]): r["begin_label"] for r in rows if "begin_label" in r}
    better: dict[Any, str] = {}
    for row in (row for row in rows if "output_1" in row):
        better.setdefault((row["input"], frozenset((row["output_1"], row["output_2"]))), row[f"output_{row['label']}"])

    def reply(body: Body, before: int) -> Reply:
        if "<source>" in prompt_of(body):
            label = faithful[tagged(body, "source"), tagged(body, "response")]
            return Reply(f"I compared them.\nVerdict: {'faithful' if label == 'Fully attributable' else 'unfaithful'}")
        first, second = tagged(body, "response-A"), tagged(body, "response-B")
        right = better[tagged(body, "instruction"), frozenset((first, second))] == first
        return Reply(f"I read both.\nVerdict: {'A' if right else 'B'}")

    return reply


def ragas_oracle(body: Body, before: int = 0) -> Reply:
    """Answers ragas' prompts by its own forms. A statement is held to follow from a context that has all its words."""
    prompt = prompt_of(body)
    given = json.loads(prompt[prompt.rindex("\ninput: ") + 8 : prompt.rindex("\nOutput: ")])
    if "statements" in given:
        known = set(re.findall(r"\w+", given["context"].lower()))
        made = [
            {"statement": each, "reason": "words", "verdict": int(set(re.findall(r"\w+", each.lower())) <= known)}
            for each in given["statements"]
        ]
        return Reply(json.dumps({"statements": made}))
    if "response" in given:
        return Reply(json.dumps({"question": given["response"], "noncommittal": 0}))
    if "noncommittal" in prompt or "Break down each sentence" in prompt:
        return Reply(json.dumps({"statements": [given["answer"]]}))
    known = set(re.findall(r"\w+", given["context"].lower()))
    useful = len(known & set(re.findall(r"\w+", given["answer"].lower()))) > 5
    if "classifications" in prompt:
        made = [{"statement": given["answer"], "reason": "words", "attributed": int(useful)}]
        return Reply(json.dumps({"classifications": made}))
    return Reply(json.dumps({"reason": "words", "verdict": int(useful)}))


class Letters:
    """Texts by how often each letter comes: equal texts are one, different ones less."""

    identity = "letters 1"

    def embed(self, texts: Sequence[str]) -> Any:
        import numpy as np

        counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=float)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def endpoint(url: str, **more: Any) -> OpenAiEndpoint:
    return OpenAiEndpoint(url, **({"timeout": 10.0, "retries": 1, "patient": True} | more))


def open_store(folder: Path) -> FsspecArtifactStore:
    return FsspecArtifactStore(str(folder / "store"), folder / "cache", TenantKeys(folder / "vault"))


def labelled(rows: list[dict[str, Any]], judge: Judge) -> LabelledSet:
    return read_set(enumerate(rows), judge.file.set, "set.jsonl")


def graded_rows(count: int = 50) -> list[dict[str, Any]]:
    """Replies with people's grades on the scale of `reply-quality`; `grade` gives the same."""
    return [
        {
            "question": f"Q {n}?",
            "criteria": "says good",
            "response": f"{'good' if n % 2 else 'bad'} {n}",
            "score": 5 if n % 2 else 1,
        }
        for n in range(count)
    ]


def grade(body: Body, before: int = 0) -> Reply:
    return Reply(f"I read it.\nVerdict: {5 if 'good' in tagged(body, 'reply') else 1}")
