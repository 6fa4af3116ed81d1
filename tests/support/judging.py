"""A scripted judge behind a real HTTP server, and sets of items with labels for it."""

import json
import re
from collections.abc import Callable
from typing import Any

from evals.judge import PromptJudge, load_judge
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
