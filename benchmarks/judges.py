"""What calibration says of a bad judge and of one that answers from the labels, and ragas through a real server.

    python -m benchmarks.judges --data FOLDER [--sample 60] [--answers 20] [--brief]
                                [--endpoint URL --model NAME [--template FILE]]

The bad judge is the installation's base model (135 M parameters) behind its vLLM, unless an endpoint is named. It gets
a sample of each set, and ragas asks it about so many answers; the oracle gets all of both. With ``--brief`` it is asked
for the verdict alone, and has 128 tokens for what ragas asks, which takes a tenth of the time. FOLDER holds
rag/begin_wow.jsonl and pref/llmbar_natural_mtbench.jsonl; counts and figures only, no text.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evals.calibration import Sitting, calibrate, read_set
from evals.judge import Judge, JudgeDecoding, PromptJudge, RagasJudge, load_judge, load_policy
from evals.judging import judge_answers, sittings
from evals.passages import PassageItem
from evals.suite import load_suite, read_items
from pipelines.recipes.product import ROOT
from pipelines.settings import Settings
from pipelines.stages.data.plain import rows
from pipelines.stages.train import steps
from pipelines.wiring import Line
from resources.openai_endpoint import OpenAiEndpoint
from tests.support.judging import oracle, ragas_oracle
from tests.support.ports import free_ports
from tests.support.teacher import teaching
from tests.support.tiny import CHATML

SETS = {"faithfulness": "rag/begin_wow.jsonl", "preference": "pref/llmbar_natural_mtbench.jsonl"}
RULE = load_policy("default")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--sample", type=int, default=60)
    parser.add_argument("--answers", type=int, default=20)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--template", type=Path)
    parser.add_argument("--brief", action="store_true")
    parser.add_argument("--timeout", type=float, default=600)
    chosen = parser.parse_args()
    print("| judge | set | items | kappa | consistency | named the first | failed | trusted | s |\n|-|-|-|-|-|-|-|-|-|")
    for task, name in SETS.items():
        known = [row for _, row in rows(chosen.data / name)]
        with teaching(oracle(known)) as server:
            calibration("oracle", Judge(load_judge(task), "oracle"), server.url, chosen.data / name, None, 60)
    with teaching(ragas_oracle) as server:
        ragas("oracle", server.url, "oracle", "", 60)
    with served(chosen.endpoint, chosen.model, chosen.template) as (url, model, template):
        for task, name in SETS.items():
            judge = Judge(brief(load_judge(task)) if chosen.brief else load_judge(task), model, template)
            calibration("model", judge, url, chosen.data / name, chosen.sample, chosen.timeout)
        ragas("model", url, model, template, chosen.timeout, chosen.answers, 128 if chosen.brief else None)


def brief(judge: PromptJudge | RagasJudge) -> PromptJudge:
    """The same judge without its sentences of thought."""
    if not isinstance(judge, PromptJudge):
        raise TypeError("only a judge with a prompt of ours can be brief")
    prompt = judge.prompt.replace("Think in one or two sentences. Then end with one line", "Answer with one line")
    return judge.model_copy(update={"prompt": prompt, "decoding": JudgeDecoding(max_tokens=16)})


def calibration(who: str, judge: Judge, url: str, path: Path, sample: int | None, timeout: float) -> None:
    labelled = read_set(rows(path), judge.file.set, path.name, sample)
    began = time.monotonic()
    found = calibrate(judge, endpoint(url, timeout), labelled)
    reason = found.distrust(RULE)
    consistency = "" if found.consistency is None else f"{found.consistency:.2f} (at least {found.consistency_low:.2f})"
    first = "" if found.first_place is None else f"{found.first_place:.2f}"
    kappa = f"{found.kappa:.2f} [{found.kappa_low:.2f}, {found.kappa_high:.2f}]"
    failed = f"{sum(found.failures.values())} of {found.asked}"
    seconds = time.monotonic() - began
    line = [who, path.name, found.items, kappa, consistency, first, failed, "no" if reason else "yes", f"{seconds:.0f}"]
    print("| " + " | ".join(map(str, line)) + " |", flush=True)
    print(f"{who}, {path.name}: {found.failures} {found.counts} {reason}", file=sys.stderr)


def ragas(
    who: str,
    url: str,
    model: str,
    template: str,
    timeout: float,
    count: int | None = None,
    max_tokens: int | None = None,
) -> None:
    """ragas over the shipped suite, the references standing in for answers."""
    suite = load_suite(ROOT / "evals/suites/billing-help.yaml")
    items = read_items(suite.data_path(), PassageItem)[:count]
    answers = {item.id: item.reference for item in items}
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "judge.jinja"
        file.write_text(template)
        served_at: Any = {"judge_url": url, "judge_model": model, "judge_timeout": timeout}
        line = Line(Settings(home=Path(home), judge_template=file if template else None, **served_at))
        for metric in suite.judged:
            judges = {metric: sittings(line, suite)[metric]}
            if max_tokens:
                judges = {metric: shortened(judges[metric], max_tokens)}
            began = time.monotonic()
            found = judge_answers(line, judges, items, answers, suite.digest, lambda *_: None)
            mean = sum(scores[metric] for scores in found.scores.values()) / len(items)
            failed, seconds = found.judged[metric].failed, time.monotonic() - began
            print(
                f"ragas {metric}, {who}: mean {mean:.2f}, {failed} of {len(items)} failed, {seconds:.0f} s",
                flush=True,
            )


def shortened(sitting: Sitting, max_tokens: int) -> Sitting:
    file = sitting.judge.file.model_copy(update={"decoding": JudgeDecoding(max_tokens=max_tokens)})
    return sitting._replace(judge=sitting.judge._replace(file=file))


@contextmanager
def served(url: str, model: str, template: Path | None) -> Iterator[tuple[str, str, str]]:
    """(address, model, chat template to send along) of the endpoint named, or of the base in a vLLM of its own."""
    if url:
        yield url, model, template.read_text() if template else ""
        return
    with tempfile.TemporaryDirectory() as home:
        ports: Any = dict(zip(("gateway_port", "vllm_port", "mlflow_port", "dagster_port"), free_ports(4), strict=True))
        line = Line(Settings(home=Path(home) / "home", serve_slots=3, serve_max_model_len=4096, **ports))
        base, _ = steps.stored_base(line, line.settings.base_model)
        try:
            line.server.ensure_running(base)
            yield line.server.url(), line.server.base_name(), CHATML
        finally:
            line.supervisor.down()


def endpoint(url: str, timeout: float) -> OpenAiEndpoint:
    return OpenAiEndpoint(url, concurrency=32, timeout=timeout, retries=1, patient=True)


if __name__ == "__main__":
    main()
