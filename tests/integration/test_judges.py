"""Judges through the real vLLM: calibration refuses a model of random weights, and ragas counts what it cannot use."""

from data_contracts.digests import sha256_bytes
from data_contracts.manifests import BaseManifest
from evals.calibration import calibrate, read_set
from evals.judge import Judge, JudgeDecoding, load_judge, load_policy
from evals.judging import judge_answers, sittings
from evals.passages import PassageItem
from evals.protocols import JudgeModel
from evals.suite import load_suite, read_items
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
    suite = load_suite(ROOT / "evals/suites/billing-help.yaml").model_copy(update={"metrics": ("faithfulness",)})
    items = read_items(suite.data_path(), PassageItem)[:12]
    server = OpenAiEndpoint(tiny_vllm.url(), timeout=60, retries=1, patient=True)
    line = Line(tiny_line.settings)
    line.__dict__["judge"] = JudgeModel(server, tiny_vllm.base_name(), CHATML, RULE)
    answers = {item.id: item.reference for item in items}
    artifact = sha256_bytes(b"the references")
    found = judge_answers(line, sittings(line, suite), items, answers, artifact, lambda *_: None)
    assert {scores["faithfulness"] for scores in found.scores.values()} == {0}
    assert found.judged["faithfulness"].failed == 12
    assert "is not calibrated" in found.judged["faithfulness"].untrusted
    assert line.answers.held([artifact]) == 0
