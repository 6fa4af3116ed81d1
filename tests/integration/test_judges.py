"""Judges through the real vLLM: calibration refuses a model of random weights, and ragas counts what it cannot use."""

from data_contracts.manifests import BaseManifest
from evals.calibration import calibrate, read_set, seat
from evals.judge import Judge, JudgeDecoding, load_judge, load_policy
from evals.rag import load_rag, score_rag
from pipelines.recipes.product import ROOT
from pipelines.wiring import Line
from resources.openai_endpoint import OpenAiEndpoint
from resources.vllm_server import VllmServer
from tests.support.judging import faithful_rows, paired_rows
from tests.support.tiny import CHATML

RULE = load_policy("default")


def test_a_model_that_knows_nothing_is_no_judge(tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest) -> None:
    tiny_vllm.ensure_running(tiny_base_manifest)
    endpoint = OpenAiEndpoint(tiny_vllm.url(), timeout=120, retries=1, patient=True)
    for task, rows in (("faithfulness", faithful_rows(16)), ("preference", paired_rows(16))):
        file = load_judge(task).model_copy(update={"decoding": JudgeDecoding(max_tokens=24)})
        judge = Judge(file, tiny_vllm.base_name(), CHATML)
        found = calibrate(judge, endpoint, read_set(enumerate(rows), judge.file.set, task))
        assert sum(count for row in found.counts.values() for count in row.values()) == 16
        assert found.asked == 16 * (1 + (task == "preference"))
        assert found.kappa < 0.4
        assert "kappa" in found.distrust(RULE)


def test_ragas_asks_it_too_and_its_failures_are_counted(
    tiny_line: Line, tiny_vllm: VllmServer, tiny_base_manifest: BaseManifest
) -> None:
    tiny_vllm.ensure_running(tiny_base_manifest)
    suite = load_rag(ROOT / "evals/passages/billing-help.yaml")
    suite = suite.model_copy(update={"metrics": ("faithfulness",)})
    endpoint = OpenAiEndpoint(tiny_vllm.url(), timeout=60, retries=1, patient=True)
    judge = Judge(load_judge("ragas-faithfulness"), tiny_vllm.base_name(), CHATML)
    sitting = seat(tiny_line.store, judge, endpoint, None, RULE)
    answers = {item.id: item.reference for item in suite.items()}
    scores = score_rag(suite, answers, {"faithfulness": sitting}, tiny_line.embedder)
    assert len(scores.items) == 12
    assert scores.judged["faithfulness"].failed == 12
    assert "is not calibrated" in scores.judged["faithfulness"].untrusted
